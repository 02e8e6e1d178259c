package door

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/millrace/millrace"
)

// answer is what a request is answered with.
type answer struct {
	status int
	body   []byte
	json   bool   // that is what body is
	reason string // why not, if status says so; nsqd's word for it

	challenge bool         // the client should come again with a token
	by        http.Handler // answers instead
}

func text(body string) answer { return answer{status: http.StatusOK, body: []byte(body)} }

// done is the answer to what needs none.
func done() answer { return answer{status: http.StatusOK} }

// inJSON answers with what encoding/json makes of v.
func inJSON(v any) answer {
	body, err := json.Marshal(v)
	if err != nil {
		return refuse(http.StatusInternalServerError, err.Error())
	}
	return answer{status: http.StatusOK, body: body, json: true}
}

func refuse(status int, reason string) answer { return answer{status: status, reason: reason} }

// badRequest is the most common refusal.
func badRequest(reason string) answer { return refuse(http.StatusBadRequest, reason) }

// failed is the answer when the broker could not do what it was asked to.
func failed(err error) answer {
	switch {
	case errors.Is(err, millrace.ErrTooLarge):
		return refuse(http.StatusRequestEntityTooLarge, "MSG_TOO_BIG")
	case errors.Is(err, millrace.ErrNoSpace):
		return refuse(http.StatusInsufficientStorage, "NO_SPACE - "+err.Error())
	case errors.Is(err, millrace.ErrClosed):
		return refuse(http.StatusServiceUnavailable, "EXITING")
	}
	return refuse(http.StatusInternalServerError, "INTERNAL_ERROR")
}

// write answers as nsqd does: a reason is put into JSON.
func (a answer) write(w http.ResponseWriter) {
	if a.reason != "" {
		a.json = true
		a.body, _ = json.Marshal(struct {
			Message string `json:"message"`
		}{a.reason}) // a string is always encoded
	}
	if a.challenge {
		w.Header().Add("WWW-Authenticate", `Bearer realm="millrace"`)
		w.Header().Add("WWW-Authenticate", `Basic realm="millrace"`)
	}
	if a.json {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
	}
	w.Header().Set("X-NSQ-Content-Type", "nsq; version=1.0")
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // the client is gone: nobody to tell
}

// writePlain answers with text alone, as nsqd does where people and load balancers ask.
func (a answer) writePlain(w http.ResponseWriter) {
	if a.reason != "" {
		a.body = []byte(a.reason)
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body)
}
