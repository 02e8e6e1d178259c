package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
)

const (
	// deadReason and deadBody are how much is listed of a letter's reason and body, in
	// characters.
	deadReason = 60
	deadBody   = 40
)

// list prints the letters, and to notes what it does not print.
func (o *deadOptions) list(ctx context.Context, out, notes io.Writer) error {
	listed, enough := 0, false
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	json := &messagePrinter{end: '\n', json: true}
	left, err := o.look(ctx, func(ds []millrace.Delivery) (bool, error) {
		var wanted []millrace.Delivery
		for _, d := range ds {
			if !o.wants(&d) {
				continue
			}
			if enough = listed+len(wanted) == o.count; enough {
				break
			}
			wanted = append(wanted, d)
		}
		first := listed == 0
		listed += len(wanted)
		if o.json {
			return enough, json.print(out, wanted)
		}
		return enough, printLetters(table, wanted, first)
	})
	if err = errors.Join(err, table.Flush()); err != nil {
		return err
	}
	switch {
	case enough:
		_, err = fmt.Fprintln(notes, "there are more: see -n")
	case left > 0:
		_, err = fmt.Fprintf(notes, "%s more that somebody else is at, or that wait for their time\n", letters(left))
	case listed == 0:
		if err := o.noSuchTopic(ctx); err != nil {
			return err
		}
		_, err = fmt.Fprintf(notes, "no dead letters of %s\n", o.topic)
	}
	return err
}

// look shows the letters to use until that has seen enough, and returns how many there are
// that cannot be seen. Where the broker cannot show what waits, they are taken out, and
// given back.
func (o *deadOptions) look(ctx context.Context, use func([]millrace.Delivery) (enough bool, err error)) (left int64, err error) {
	if err := o.peek(ctx, use); !errors.Is(err, errNoPeek) {
		return 0, err
	}
	box, err := o.openBox(ctx)
	if err != nil {
		return 0, err
	}
	err = box.each(ctx, func(ds []millrace.Delivery) (bool, error) {
		enough, err := use(ds)
		return enough, errors.Join(err, box.keep(ctx, ds))
	})
	return box.there, errors.Join(err, box.close())
}

// printLetters prints a line for each letter, below the names of the columns if they are
// the first.
func printLetters(w io.Writer, ds []millrace.Delivery, first bool) error {
	if first && len(ds) > 0 {
		if _, err := fmt.Fprintln(w, "ID\tDIED\tATTEMPTS\tCHANNEL\tREASON\tBODY"); err != nil {
			return err
		}
	}
	for i := range ds {
		d := &ds[i]
		died := "-"
		if d.Published != 0 {
			died = time.Unix(0, d.Published).Format(time.DateTime)
		}
		_, err := fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", orText(letterID(d), "-"), died,
			column(d, millrace.HeaderAttempts, 8), column(d, millrace.HeaderChannel, millrace.MaxNameLen),
			column(d, millrace.HeaderError, deadReason), excerpt(d.Body, deadBody))
		if err != nil {
			return err
		}
	}
	return nil
}

// column is a header as it is listed.
func column(d *millrace.Delivery, header string, most int) string {
	value, _ := d.Headers.Get(header)
	return orText(excerpt(value, most), "-")
}

// excerpt is the beginning of a text in so many characters, on one line. What a terminal
// might obey is written as in Go's strings.
func excerpt(text []byte, most int) string {
	var b strings.Builder
	n, cut := 0, len(text) > 4*most
	for _, r := range string(text[:min(len(text), 4*most)]) {
		shown := string(r)
		if !strconv.IsPrint(r) {
			shown = strings.Trim(strconv.QuoteRune(r), "'")
		}
		if n += utf8.RuneCountInString(shown); n > most {
			cut = true
			break
		}
		b.WriteString(shown)
	}
	if cut {
		b.WriteString("…")
	}
	return b.String()
}

// revived is the message that a letter was before it died. It has all its retries again.
func revived(d *millrace.Delivery) millrace.Message {
	said := []string{
		millrace.HeaderError, millrace.HeaderErrorKind, millrace.HeaderAttempts, millrace.HeaderQueue,
		millrace.HeaderChannel, millrace.HeaderSequence, millrace.HeaderPublished,
	}
	if d.Headers.Text(millrace.HeaderErrorKind) != broker.KindUnfinished {
		said = append(said, millrace.HeaderExitCode) // the broker knows of none
	}
	said = append(said, millrace.HeaderFailures)
	// Of each only the first is the letter's: the message may have had its own.
	var h millrace.Headers
	for key, value := range d.Headers.All() {
		if i := slices.Index(said, key); i >= 0 {
			said = slices.Delete(said, i, i+1)
			continue
		}
		h = h.Append(key, value)
	}
	return millrace.Message{Headers: h, Body: d.Body}
}
