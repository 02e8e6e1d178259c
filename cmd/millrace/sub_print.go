package main

import (
	"encoding/json"
	"io"
	"unicode/utf8"

	"github.com/millrace/millrace"
)

// messagePrinter writes messages, one a line.
type messagePrinter struct {
	end  byte
	json bool
	buf  []byte
}

// print writes the messages in one write.
func (p *messagePrinter) print(w io.Writer, ds []millrace.Delivery) error {
	p.buf = p.buf[:0]
	for i := range ds {
		if p.json {
			line, err := json.Marshal(describe(&ds[i]))
			if err != nil {
				return err
			}
			p.buf = append(p.buf, line...)
		} else {
			p.buf = append(p.buf, ds[i].Body...)
		}
		p.buf = append(p.buf, p.end)
	}
	_, err := w.Write(p.buf)
	if cap(p.buf) > 1<<20 {
		p.buf = nil
	}
	return err
}

// description is a message as sub and peek print it.
type description struct {
	ID        string            `json:"id,omitempty"`
	Sequence  uint64            `json:"sequence,omitempty"`
	Attempt   uint32            `json:"attempt"`
	Published int64             `json:"published,omitempty"`
	State     string            `json:"state,omitempty"`
	Until     int64             `json:"until,omitempty"`
	Headers   map[string]string `json:"headers,omitempty"`
	Body      *string           `json:"body,omitempty"`
	Base64    []byte            `json:"body_base64,omitempty"`
}

// bytes returns the body.
func (d *description) bytes() []byte {
	if d.Body != nil {
		return []byte(*d.Body)
	}
	return d.Base64
}

func describe(d *millrace.Delivery) description {
	about := description{ID: letterID(d), Sequence: d.Seq, Attempt: d.Attempt, Published: d.Published}
	for key, value := range d.Headers.All() {
		if about.Headers == nil {
			about.Headers = make(map[string]string)
		}
		if _, known := about.Headers[key]; !known { // the first counts
			about.Headers[key] = value
		}
	}
	if utf8.Valid(d.Body) {
		text := string(d.Body)
		about.Body = &text
	} else {
		about.Base64 = d.Body
	}
	return about
}
