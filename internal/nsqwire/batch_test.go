package nsqwire

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

func batchOf(bodies ...string) []byte {
	var all [][]byte
	for _, b := range bodies {
		all = append(all, []byte(b))
	}
	return AppendBatch(nil, all...)
}

func TestABatchIsTakenApartWithoutCopies(t *testing.T) {
	batch := append(batchOf("one", "2", "three"), "behind"...)
	count, err := SplitBatch(batch, 5, 100)
	if err != nil || count != 3 {
		t.Fatalf("SplitBatch = %d, %v", count, err)
	}
	var got []string
	for body := range Bodies(batch) {
		got = append(got, string(body))
		if cap(body) != len(body) {
			t.Errorf("appending to %q would overwrite what follows", body)
		}
		body[0] = '!'
	}
	if !slices.Equal(got, []string{"one", "2", "three"}) || !bytes.Contains(batch, []byte("!hree")) {
		t.Errorf("bodies are %q, of the batch %q", got, batch)
	}
	for range Bodies(batch) {
		break
	}
}

func TestABadBatchIsRefusedAsByNsqd(t *testing.T) {
	be := func(n uint32) string { return string([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}) }
	for batch, want := range map[string]string{
		"":                                  "E_BAD_BODY MPUB failed to read message count",
		"\x00\x00\x00":                      "E_BAD_BODY MPUB failed to read message count",
		be(0):                               "E_BAD_BODY MPUB invalid message count 0",
		be(1 << 31):                         "E_BAD_BODY MPUB invalid message count -2147483648",
		be(20):                              "E_BAD_BODY MPUB invalid message count 20",
		be(19):                              "E_BAD_MESSAGE MPUB failed to read message(0) body size",
		be(2) + be(0):                       "E_BAD_MESSAGE MPUB invalid message(0) body size 0",
		be(2) + be(1) + "x" + be(1<<32-1):   "E_BAD_MESSAGE MPUB invalid message(1) body size -1",
		be(2) + be(1) + "x" + be(51):        "E_BAD_MESSAGE MPUB message too big 51 > 50",
		be(2) + be(1) + "x" + "\x00\x00":    "E_BAD_MESSAGE MPUB failed to read message(1) body size",
		be(2) + be(1) + "x" + be(4) + "xxx": "E_BAD_MESSAGE MPUB failed to read message body",
		string(batchOf(strings.Repeat("x", 50), strings.Repeat("y", 50))): "E_BAD_BODY MPUB body too big 112 > 100",
	} {
		_, err := SplitBatch([]byte(batch), 50, 100)
		var told *Error
		if !errors.As(err, &told) || told.Error() != want {
			t.Errorf("%q: %v, want %s", batch, err, want)
		}
	}
}

// However a batch arrives, it is found to end where it does.
func TestABatchThatArrivesInPiecesIsWaitedFor(t *testing.T) {
	batch := batchOf("one", "2", strings.Repeat("three", 100))
	for step := 1; step <= len(batch); step++ {
		scan := BatchScan{MaxMessage: 1000, MaxBody: 1000}
		for n := 0; ; {
			need, err := scan.Scan(batch[:n])
			if err != nil {
				t.Fatal(err)
			}
			if need == 0 {
				if scan.Len() != len(batch) || scan.Count() != 3 {
					t.Fatalf("%d messages in %d bytes, want 3 in %d", scan.Count(), scan.Len(), len(batch))
				}
				break
			}
			if need <= n || need > len(batch) {
				t.Fatalf("with %d of %d bytes it needs %d", n, len(batch), need)
			}
			for n < need {
				n = min(n+step, len(batch))
			}
		}
	}
}

func FuzzBatch(f *testing.F) {
	f.Add(batchOf("one", "2", "three"), 7)
	f.Add(batchOf(""), 1)
	f.Add([]byte("\x00\x00\x00\x01\x7f\xff\xff\xff"), 3)
	f.Add([]byte("\xff\xff\xff\xff"), 100)
	f.Fuzz(func(t *testing.T, b []byte, step int) {
		count, whole := SplitBatch(b, 1000, 10_000)
		if whole == nil {
			var bodies [][]byte
			for body := range Bodies(b) {
				bodies = append(bodies, body)
			}
			if again := AppendBatch(nil, bodies...); len(bodies) != count || !bytes.HasPrefix(b, again) {
				t.Fatalf("%d bodies, want %d; together %q of %q", len(bodies), count, again, b)
			}
		}
		scan := BatchScan{MaxMessage: 1000, MaxBody: 10_000}
		step = max(1, step%100)
		for n := 0; ; n = min(n+step, len(b)) {
			need, err := scan.Scan(b[:n])
			if err == nil && need > 0 && n < len(b) {
				continue
			}
			if err == nil && need > 0 {
				err = scan.Cut(b)
			}
			if (err == nil) != (whole == nil) || err != nil && err.Error() != whole.Error() {
				t.Fatalf("in pieces of %d: %v, at once: %v", step, err, whole)
			}
			return
		}
	})
}

func TestWhatNsqlookupdHears(t *testing.T) {
	for want, got := range map[string][]byte{
		"IDENTIFY\n\x00\x00\x00\x02{}": AppendLookupIdentify(nil, []byte("{}")),
		"REGISTER t\n":                 AppendRegister(nil, "t", ""),
		"REGISTER t c\n":               AppendRegister(nil, "t", "c"),
		"UNREGISTER t\n":               AppendUnregister(nil, "t", ""),
		"UNREGISTER t c\n":             AppendUnregister(nil, "t", "c"),
	} {
		if string(got) != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestAnswersOfNsqlookupd(t *testing.T) {
	const whole = "\x00\x00\x00\x02OK"
	for n := range whole {
		if _, taken, err := ParseAnswer([]byte(whole[:n]), 10); taken != 0 || err != nil {
			t.Errorf("%q: %d, %v, want to wait", whole[:n], taken, err)
		}
	}
	if data, taken, err := ParseAnswer([]byte(whole+"more"), 2); string(data) != "OK" || taken != 6 || err != nil {
		t.Errorf("%q, %d, %v", data, taken, err)
	}
	for _, bad := range []string{"\x00\x00\x00\x0bxxx", "\xff\xff\xff\xff"} {
		if _, _, err := ParseAnswer([]byte(bad), 10); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
