package crash

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

// presence is what is known of something: between a request and its answer, nothing.
type presence int

const (
	unknown presence = iota
	no
	yes
)

// thing is a topic or a channel that an administrator works on.
type thing struct{ there, paused presence }

// admin creates, pauses, unpauses and deletes topics and channels of its own, and whenever
// the broker is back, compares what there is with what it was told.
type admin struct {
	*load
	random *rand.Rand
	things map[string]*thing // "topic" or "topic/channel"
	done   int
	checks int
}

func (l *load) administer(random *rand.Rand) *admin {
	a := &admin{load: l, random: random, things: make(map[string]*thing)}
	l.running[0].Go(func() {
		for l.publish.Err() == nil {
			if err := a.change(); err == nil {
				a.done++
				continue
			} else if errors.Is(err, errRefused) {
				l.t.Error(err)
				return
			}
			for l.publish.Err() == nil && a.check() != nil {
				time.Sleep(time.Millisecond)
			}
		}
	})
	return a
}

// change does one thing, and notes what it was told.
func (a *admin) change() error {
	topic := fmt.Sprint("admin", a.random.IntN(3))
	if a.known(topic).there != yes {
		return a.ask("/topic/create?topic="+topic, func(sure bool) { a.known(topic).there = certain(sure, yes) })
	}
	if n := a.random.IntN(20); n == 0 {
		return a.ask("/topic/delete?topic="+topic, func(sure bool) {
			for name, t := range a.things {
				if name == topic || strings.HasPrefix(name, topic+"/") {
					*t = thing{certain(sure, no), certain(sure, no)}
				}
			}
		})
	} else if n < 6 {
		return a.pause("/topic/", "topic="+topic, a.known(topic))
	}
	channel := fmt.Sprint("c", a.random.IntN(4))
	c := a.known(topic + "/" + channel)
	query := "topic=" + topic + "&channel=" + channel
	switch {
	case c.there != yes:
		return a.ask("/channel/create?"+query, func(sure bool) { c.there = certain(sure, yes) })
	case a.random.IntN(3) == 0:
		return a.ask("/channel/delete?"+query, func(sure bool) { *c = thing{certain(sure, no), certain(sure, no)} })
	default:
		return a.pause("/channel/", query, c)
	}
}

func (a *admin) known(name string) *thing {
	if a.things[name] == nil {
		a.things[name] = &thing{no, no}
	}
	return a.things[name]
}

func certain(sure bool, p presence) presence {
	if sure {
		return p
	}
	return unknown
}

func (a *admin) pause(path, query string, t *thing) error {
	if t.paused == yes {
		return a.ask(path+"unpause?"+query, func(sure bool) { t.paused = certain(sure, no) })
	}
	return a.ask(path+"pause?"+query, func(sure bool) { t.paused = certain(sure, yes) })
}

// ask posts a request. It calls note before, when nothing is sure, and after the answer.
func (a *admin) ask(path string, note func(sure bool)) error {
	note(false)
	err := a.post(path, "")
	if err == nil {
		note(true)
	}
	return err
}

// check compares what there is with what is known, and takes the rest for known. It fails
// while the broker is down.
func (a *admin) check() error {
	resp, err := web.Get(a.http + "/stats?format=json&include_clients=false&include_mem=false")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("stats: %s, %w", resp.Status, err)
	}
	var stats struct {
		Topics []struct {
			Name     string `json:"topic_name"`
			Paused   bool
			Channels []struct {
				Name   string `json:"channel_name"`
				Paused bool
			}
		}
	}
	if err := json.Unmarshal(body, &stats); err != nil {
		return err
	}
	found := make(map[string]thing)
	for _, t := range stats.Topics {
		found[t.Name] = thing{yes, is(t.Paused)}
		for _, c := range t.Channels {
			found[t.Name+"/"+c.Name] = thing{yes, is(c.Paused)}
		}
	}
	for name, t := range a.things {
		f, ok := found[name]
		if !ok {
			f = thing{no, no}
		}
		if t.there != unknown && t.there != f.there {
			a.t.Errorf("after a kill: is %s there? %v", name, ok)
		}
		if t.paused != unknown && t.paused != f.paused && t.there == yes {
			a.t.Errorf("after a kill: is %s paused? %v", name, f.paused == yes)
		}
		*t = f
	}
	a.checks++
	return nil
}

func is(b bool) presence {
	if b {
		return yes
	}
	return no
}
