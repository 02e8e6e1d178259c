package seglog

import "testing"

// A record is one only where it was written: in this segment, at this offset, as long as
// it is, with a number that the segment can have.
func TestARecordIsOneOnlyWhereItWasWritten(t *testing.T) {
	const salt, offset = 12345, 4096
	r := Record{Seq: 7, Time: 1, Body: []byte("body"), Headers: []byte("headers")}
	b := make([]byte, recordSize(len(r.Headers), len(r.Body)))
	putRecord(b, &r, salt, offset)
	x := expected{salt, 7, 8}
	var got Record
	if rec := x.goodRecord(append(b, "what follows"...), offset); rec == nil || !decodeRecord(rec, &got) ||
		got.Seq != 7 || string(got.Body) != "body" || string(got.Headers) != "headers" {
		t.Fatalf("%+v is read as %+v", r, got)
	}
	for name, rec := range map[string][]byte{
		"at another offset":        x.goodRecord(b, offset+1),
		"in another segment":       expected{salt + 1, 7, 8}.goodRecord(b, offset),
		"above the numbers":        expected{salt, 1, 7}.goodRecord(b, offset),
		"below the numbers":        expected{salt, 8, 9}.goodRecord(b, offset),
		"cut short":                x.goodRecord(b[:len(b)-1], offset),
		"cut before the headers":   x.goodRecord(b[:recordFixed-1], offset),
		"of which nothing is left": x.goodRecord(nil, offset),
	} {
		if rec != nil {
			t.Errorf("it is taken for one %s", name)
		}
	}
}
