package door

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestANewTopicHasTheChannelsOfTheFleetBeforeAnybodyGetsIt(t *testing.T) {
	inFleet(t, func(f *fleet) {
		var asked atomic.Int32
		f.channels = func(r *http.Request) (string, error) {
			asked.Add(1)
			time.Sleep(time.Second)
			if r.URL.Host != "lookup.example:4161" || r.URL.Path != "/channels" || r.URL.Query().Get("topic") != "orders#ephemeral" {
				return "", fmt.Errorf("asked for %s", r.URL)
			}
			channels, _ := json.Marshal(map[string][]string{"channels": {"billing", "tail#ephemeral", "archive", "not a name", "billing"}})
			return string(channels), nil
		}
		var callers sync.WaitGroup
		for range 3 {
			callers.Go(func() {
				topic, err := f.Topic("orders#ephemeral")
				if err != nil {
					t.Error(err)
					return
				}
				var names []string
				for _, ch := range topic.Channels() {
					names = append(names, ch.Name())
				}
				if slices.Sort(names); !slices.Equal(names, []string{"archive", "billing"}) {
					t.Errorf("the topic has the channels %q", names)
				}
			})
			time.Sleep(10 * time.Millisecond)
		}
		callers.Wait()
		began := time.Now()
		if _, err := f.Topic("orders#ephemeral"); err != nil || time.Since(began) > 0 {
			t.Errorf("a topic that is there: %v after %s", err, time.Since(began))
		}
		if n := asked.Load(); n != 2 {
			t.Errorf("two nsqlookupds were asked %d times", n)
		}
		if _, err := f.Topic("not a name"); err == nil {
			t.Error("a bad name was taken")
		}
	})
}

func TestOneNsqlookupdThatAnswersIsEnough(t *testing.T) {
	inFleet(t, func(f *fleet) {
		asked := 0
		var mu sync.Mutex
		f.channels = func(r *http.Request) (string, error) {
			mu.Lock()
			defer mu.Unlock()
			if asked++; asked == 1 {
				return "<html>", nil
			}
			return `{"channels":["billing"]}`, nil
		}
		topic, err := f.Topic("orders")
		if err != nil || len(topic.Channels()) != 1 {
			t.Errorf("%v, %d channels", err, len(topic.Channels()))
		}
	})
}

func TestNsqlookupdsThatDoNotAnswerHoldANewTopicUpButNotForLong(t *testing.T) {
	inFleet(t, func(f *fleet) {
		f.channels = func(r *http.Request) (string, error) {
			<-r.Context().Done()
			return "", r.Context().Err()
		}
		began := time.Now()
		if _, err := f.Topic("orders"); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

func TestNsqlookupdsThatCannotBeReachedDoNotHoldANewTopicUp(t *testing.T) {
	inFleet(t, func(f *fleet) {
		f.set(func(context.Context, string) (net.Conn, error) { return nil, errors.New("connection refused") })
		f.registrar.setAddresses([]string{"down:1", "down:2"})
		began := time.Now()
		if _, err := f.Topic("orders"); err != nil || time.Since(began) > 0 {
			t.Errorf("%v after %s", err, time.Since(began))
		}
	})
}
