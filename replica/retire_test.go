package replica_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/replica"
)

// serials returns "number/serial" of the replicas.
func serials(set *replica.Set[int]) (all []string) {
	for _, st := range set.Replicas() {
		all = append(all, fmt.Sprintf("%d/%d", st.Number, st.Serial))
	}
	return all
}

func TestACertainReplicaRetiresAfterItsMessageAndIsNotReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got record
		handler := func(ctx context.Context, msg int) error {
			time.Sleep(time.Minute)
			return got.handle(ctx, msg)
		}
		f := newFixture(t, handler, replica.Config[int]{Replicas: 3})
		f.send(0, 3)
		if err := f.RetireReplica(2, 2); err != nil {
			t.Fatal(err)
		}
		f.want(2, 3, 0)
		// A repeat must not make anybody believe that one more leaves.
		if err := f.RetireReplica(2, 2); !errors.Is(err, replica.ErrNoReplica) {
			t.Errorf("again: %v", err)
		}
		time.Sleep(2 * time.Minute)
		f.want(2, 0, 0)
		if got := serials(f.Set); fmt.Sprint(got) != "[1/1 3/3]" {
			t.Errorf("left are %v", got)
		}
		_ = f.shutdown()
	})
}

func TestWhoHasTheNumberOfOneThatHasLeftIsNotMeant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got record
		f := newFixture(t, got.handle, replica.Config[int]{Replicas: 2})
		if err := f.RetireReplica(1, 1); err != nil { // an idle one leaves at once
			t.Fatal(err)
		}
		synctest.Wait()
		if err := f.Scale(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		if got := serials(f.Set); fmt.Sprint(got) != "[1/3 2/2]" {
			t.Fatalf("there are %v", got)
		}
		for _, one := range []struct {
			number int
			serial uint64
		}{{1, 1}, {1, 2}, {2, 3}, {0, 0}, {7, 3}} {
			if err := f.RetireReplica(one.number, one.serial); !errors.Is(err, replica.ErrNoReplica) {
				t.Errorf("%v: %v", one, err)
			}
		}
		f.want(2, 0, 0)
		_ = f.shutdown()
		if err := f.RetireReplica(1, 3); !errors.Is(err, replica.ErrStopped) {
			t.Errorf("after the end: %v", err)
		}
	})
}
