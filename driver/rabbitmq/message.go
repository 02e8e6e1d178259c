package rabbitmq

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/millrace/millrace"
)

// What the driver says in a message's headers to itself.
const (
	ours           = "millrace-"
	headerList     = ours + "headers"  // the list as it is, where the properties cannot say it
	headerAttempts = ours + "attempts" // deliveries before this copy was made
	headerDue      = ours + "due"      // of what must be delayed once more: milliseconds of Unix time
	headerMoved    = ours + "moved"    // a delivery of the subscription itself: see hold.go

	headerContentType = "content-type" // is a property
)

// maxShort is how long AMQP's short strings can be, which names and properties are.
const maxShort = 255

// write fills in the properties and headers that say what h does. Values that are not text are
// bytes there, which other languages' libraries tell apart.
//
// From the properties and headers alone, read makes the list in which id, reply-to and
// content-type come first, then the others by name. A list that is not so, because it
// has another order, a key twice, or what AMQP cannot say, is added as it is.
func write(p *amqp.Publishing, h millrace.Headers) {
	var last string // header that is not a property
	lastRank, plain := 0, true
	for key, value := range h.All() {
		rank, fits := place(p, key, value)
		switch {
		case !fits || rank < lastRank || rank == inTable && key <= last:
			plain = false
		case rank == inTable:
			last = key
		}
		lastRank = rank
	}
	if !plain {
		set(p, headerList, []byte(h))
	}
}

// inTable is the rank of headers that are not properties.
const inTable = 4

// place puts the first value of a key where it belongs, and returns the rank of that place in
// the order, and whether it was free and fit for the value.
func place(p *amqp.Publishing, key, value string) (rank int, fits bool) {
	property := (*string)(nil)
	switch key {
	case millrace.HeaderID:
		rank, property = 1, &p.CorrelationId
	case millrace.HeaderReplyTo:
		rank, property = 2, &p.ReplyTo
	case headerContentType:
		rank, property = 3, &p.ContentType
	}
	if property != nil {
		if fits = value != "" && len(value) <= maxShort && *property == ""; fits {
			*property = value
		}
		return rank, fits
	}
	if _, taken := p.Headers[key]; taken || key == "" || len(key) > maxShort || isReserved(key) {
		return inTable, false
	}
	if utf8.ValidString(value) {
		set(p, key, value)
	} else {
		set(p, key, []byte(value))
	}
	return inTable, true
}

func set(p *amqp.Publishing, key string, value any) {
	if p.Headers == nil {
		p.Headers = amqp.Table{}
	}
	p.Headers[key] = value
}

// isReserved says whether a header means something to RabbitMQ or to the driver.
func isReserved(key string) bool {
	return key == "CC" || key == "BCC" || isProperty(key) || strings.HasPrefix(key, "x-") || strings.HasPrefix(key, ours)
}

func isProperty(key string) bool {
	return key == millrace.HeaderID || key == millrace.HeaderReplyTo || key == headerContentType
}

// read is the inverse of write. It also makes a list of what other programs have written.
func read(d *amqp.Delivery) millrace.Headers {
	if list, ok := d.Headers[headerList].([]byte); ok {
		if h := millrace.Headers(list); h.Check() == nil && says(d, h) {
			return h
		}
	}
	size := 0
	for key := range d.Headers {
		size += len(key) + 32
	}
	h := make(millrace.Headers, 0, len(d.CorrelationId)+len(d.ReplyTo)+24+size)
	if d.CorrelationId != "" {
		h = h.Append(millrace.HeaderID, d.CorrelationId)
	}
	if d.ReplyTo != "" {
		h = h.Append(millrace.HeaderReplyTo, d.ReplyTo)
	}
	if d.ContentType != "" {
		h = h.Append(headerContentType, d.ContentType)
	}
	if len(d.Headers) > 0 {
		h = readTable(h, d.Headers)
	}
	if len(h) == 0 {
		return nil
	}
	return h
}

func readTable(h millrace.Headers, table amqp.Table) millrace.Headers {
	keys := make([]string, 0, len(table))
	for key := range table {
		if isReserved(key) {
			_, is := h.Get(key)
			if is || !isProperty(key) {
				continue
			}
		}
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		h = h.Append(key, text(table[key]))
	}
	return h
}

// says whether the list is what the properties and headers say: some program may have
// changed these, and copied the list because it does not know what it is.
func says(d *amqp.Delivery, h millrace.Headers) bool {
	var p amqp.Publishing
	write(&p, h)
	return p.CorrelationId == d.CorrelationId && p.ReplyTo == d.ReplyTo && p.ContentType == d.ContentType &&
		string(readTable(nil, p.Headers)) == string(readTable(nil, d.Headers))
}

// text writes a header of another program as text.
func text(value any) string {
	switch v := value.(type) {
	case string:
		return v
	case []byte:
		return string(v)
	case nil:
		return ""
	case time.Time:
		return v.UTC().Format(time.RFC3339)
	case amqp.Table, []any:
		if b, err := json.Marshal(v); err == nil {
			return string(b)
		}
	}
	return fmt.Sprint(value)
}

// number reads a whole number, of whatever type another program gave it.
func number(value any) int64 {
	switch value.(type) {
	case int64, int32, int16, int8, int, uint8, uint16, uint32:
		n, _ := strconv.ParseInt(fmt.Sprint(value), 10, 64)
		return n
	}
	return 0
}

// attempt is the number of this delivery, from 1. Classic queues only tell whether it is the first.
func attempt(d *amqp.Delivery) uint32 {
	before := max(number(d.Headers["x-delivery-count"]), number(d.Headers["x-acquired-count"]))
	if before == 0 && d.Redelivered {
		before = 1
	}
	before += number(d.Headers[headerAttempts])
	return uint32(min(max(before, 0), 1<<31)) + 1 //nolint:gosec // it was just bounded
}

// published is when the publisher says that it published, 0 when it does not.
func published(d *amqp.Delivery) int64 {
	if d.Timestamp.IsZero() {
		return 0
	}
	return d.Timestamp.UnixNano()
}

// again makes of a delivery a message to be published once more, as it is.
func again(d *amqp.Delivery) amqp.Publishing {
	p := amqp.Publishing{
		ContentType: d.ContentType, ContentEncoding: d.ContentEncoding, DeliveryMode: amqp.Persistent,
		CorrelationId: d.CorrelationId, ReplyTo: d.ReplyTo, Timestamp: d.Timestamp,
		Type: d.Type, AppId: d.AppId, Priority: d.Priority, Body: d.Body,
	}
	for key, value := range d.Headers {
		if !strings.HasPrefix(key, "x-") {
			set(&p, key, value)
		}
	}
	return p
}
