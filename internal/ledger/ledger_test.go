package ledger

import (
	"testing"
)

func TestAMessageThatIsAckedIsDone(t *testing.T) {
	l := New(1)
	if attempt := l.Deliver(1, 100, 7); attempt != 1 {
		t.Errorf("the first delivery is attempt %d", attempt)
	}
	if l.Done(1, 2) || !l.Ack(1, 1) || !l.Done(1, 2) {
		t.Error("done before the ack, or not after it")
	}
	if l.Ack(1, 1) {
		t.Error("acked twice")
	}
}
