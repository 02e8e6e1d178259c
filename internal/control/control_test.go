package control_test

import (
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/control"
)

func TestWhatIsEncodedIsRead(t *testing.T) {
	for _, o := range []control.Order{
		{Op: control.Cancel, Cancel: "job"},
		{ID: "1", Op: control.Report, ReplyTo: control.AnswerTopic("me")},
		{ID: "2", Op: control.Scale, To: "w", From: 2, Size: 5, Before: 7},
		{ID: "3", Op: control.Retire, To: "w", Replica: 4, Serial: math.MaxUint64},
		{ID: "4", Op: control.Drain},
		{ID: "5", Op: control.Pause},
		{ID: "6", Op: control.Resume},
	} {
		got, ok := control.ReadOrder(o.Encode().Body)
		o.Version = control.Version
		if !ok || got != o {
			t.Errorf("%+v is read as %+v, %v", o, got, ok)
		}
	}
	for _, outcome := range []control.Outcome{control.Done, control.Refused, control.Ended} {
		a := control.Answer{
			ID: "1", Outcome: outcome, Why: "so",
			Worker: control.Worker{ID: "w", Size: 1, Replicas: []control.Replica{{Number: 1, Serial: 2, Task: "é"}}},
		}
		got, ok := control.ReadAnswer(a.Encode().Body)
		a.Version = control.Version
		if !ok || !reflect.DeepEqual(got, a) {
			t.Errorf("%+v is read as %+v, %v", a, got, ok)
		}
	}
}

func TestWhatIsNotUnderstoodIsNotRead(t *testing.T) {
	for _, body := range []string{
		"", "{", "[]", "null", `{"v":1}`, `{"op":"report","id":"1"}`, `{"v":2,"op":"report","id":"1"}`,
		`{"v":1,"op":"report"}`, `{"v":1,"op":"cancel"}`, `{"v":1,"op":"dance","id":"1"}`,
		`{"v":1,"op":"report","id":"1","reply_to":"a/b"}`, `{"v":1,"op":"scale","id":"1","size":"many"}`,
	} {
		if o, ok := control.ReadOrder([]byte(body)); ok {
			t.Errorf("%s is read as the order %+v", body, o)
		}
	}
	for _, body := range []string{
		"", "{", "[]", "null", `{"v":1,"outcome":"done"}`, `{"v":1,"outcome":"glad","worker":{"id":"w"}}`,
		`{"outcome":"done","worker":{"id":"w"}}`, `{"v":1,"outcome":"done","worker":{"id":"w","size":-1}}`,
	} {
		if a, ok := control.ReadAnswer([]byte(body)); ok {
			t.Errorf("%s is read as the answer %+v", body, a)
		}
	}
}

func TestFieldsOfLaterVersionsAreIgnored(t *testing.T) {
	if _, ok := control.ReadOrder([]byte(`{"v":1,"op":"report","id":"1","colour":"red"}`)); !ok {
		t.Error("an order with a field more is not read")
	}
	if _, ok := control.ReadAnswer([]byte(`{"v":1,"outcome":"done","worker":{"id":"w","mood":1}}`)); !ok {
		t.Error("an answer with a field more is not read")
	}
}

// A worker of ten thousand replicas fits into a message of any broker.
func TestTheLongestAnswerFits(t *testing.T) {
	long := control.Clip(strings.Repeat("é", 1000))
	w := control.Worker{ID: long, Host: long, Refused: long}
	for range control.MaxListed {
		w.Replicas = append(w.Replicas, control.Replica{
			Number: 10_000, Serial: math.MaxUint64, State: "emitting", Task: long, Busy: true,
			Running: math.MaxInt64, Beat: math.MaxInt64, Restarts: math.MaxUint64, Leaving: true,
		})
	}
	if size := len(control.Answer{ID: long, Outcome: control.Refused, Why: long, Worker: w}.Encode().Body); size > 900_000 {
		t.Errorf("it has %d bytes", size)
	}
}

func TestDurationsOfOthersCanBeAddedUp(t *testing.T) {
	for _, ms := range []int64{math.MinInt64, -1, 0, 1, math.MaxInt64} {
		if d := control.Duration(ms); d < 0 || d+d+d < 0 {
			t.Errorf("%d ms are %v", ms, d)
		}
	}
	if d := control.Duration(control.Millis(time.Hour)); d != time.Hour {
		t.Errorf("an hour is %v", d)
	}
	if ms := control.Millis(-time.Hour); ms != 0 {
		t.Errorf("less than nothing is %d ms", ms)
	}
}

func FuzzReading(f *testing.F) {
	f.Add([]byte(`{"v":1,"op":"scale","id":"1","to":"w","size":3,"from":2,"before_ms":9,"reply_to":"a"}`))
	f.Add([]byte(`{"v":1,"id":"1","outcome":"done","worker":{"id":"w","replicas":[{"n":1,"serial":2}]}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if o, ok := control.ReadOrder(body); ok {
			if again, ok := control.ReadOrder(o.Encode().Body); !ok || again != o {
				t.Errorf("%+v comes back as %+v, %v", o, again, ok)
			}
		}
		if a, ok := control.ReadAnswer(body); ok {
			if again, ok := control.ReadAnswer(a.Encode().Body); !ok || again.Worker.ID != a.Worker.ID {
				t.Errorf("%+v comes back as %+v, %v", a, again, ok)
			}
		}
	})
}
