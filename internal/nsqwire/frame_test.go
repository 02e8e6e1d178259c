package nsqwire

import (
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"testing"
)

func TestFramesAreWhatNSQSays(t *testing.T) {
	for name, c := range map[string]struct {
		got  []byte
		want string // in hexadecimal
	}{
		"a response": {AppendFrame(nil, FrameResponse, OK), "00000006 00000000 4f4b"},
		"an error":   {AppendFrame(nil, FrameError, BadProtocol), "00000012 00000001 455f4241445f50524f544f434f4c"},
		"no data":    {AppendFrame([]byte{9}, FrameResponse, ""), "09 00000004 00000000"},
		"a message": {
			append(AppendMessageHeader(nil, 0x0102030405060708, 3, 0xabcdef, 4), "body"...),
			"00000022 00000002 0102030405060708 0003 30303030303030303030616263646566 626f6479",
		},
		"more attempts than can be told": {
			AppendMessageHeader(nil, -1, 70_000, math.MaxUint64, 0),
			"0000001e 00000002 ffffffffffffffff ffff 66666666666666666666666666666666",
		},
	} {
		want := unspaced(t, c.want)
		if string(c.got) != string(want) {
			t.Errorf("%s is %x, want %x", name, c.got, want)
		}
	}
	if got, want := MessageSize(4), len(AppendMessageHeader(nil, 1, 1, 1, 4))+4; got != want {
		t.Errorf("MessageSize(4) = %d, want %d", got, want)
	}
}

func TestFramesAreTakenApartOnceTheyAreThere(t *testing.T) {
	stream := AppendFrame(nil, FrameResponse, OK)
	stream = append(AppendMessageHeader(stream, 7, 2, 0xabc, 4), "body"...)
	stream = AppendFrame(stream, FrameError, "E_FIN_FAILED x")
	all := len(stream)
	var got []string
	for n := 0; len(stream) > 0; { // n bytes of it have come
		kind, data, rest, need := CutFrame(stream[:n])
		if need > 0 {
			if need <= n || need > len(stream) {
				t.Fatalf("of %d bytes %d are needed, %d are to come", n, need, len(stream))
			}
			n++
			continue
		}
		got = append(got, fmt.Sprint(kind, " ", len(data)))
		if m, ok := ParseMessage(data); kind == FrameMessage {
			if id := string(AppendID(nil, 0xabc)); !ok || m.Timestamp != 7 || m.Attempts != 2 || string(m.ID[:]) != id || string(m.Payload) != "body" {
				t.Errorf("message %+v", m)
			}
		} else if ok {
			t.Errorf("%q is a message", data)
		}
		stream, n = stream[n-len(rest):], len(rest)
	}
	if want := []string{"0 2", "2 30", "1 14"}; !slices.Equal(got, want) {
		t.Errorf("%d bytes are the frames %q, want %q", all, got, want)
	}
	for _, bad := range []string{"\x00\x00\x00\x03abcd", "\xff\xff\xff\xffabcd", "HTTP/1.1 400 Bad Request"} {
		if _, _, _, need := CutFrame([]byte(bad)); need != -1 {
			t.Errorf("%q is the beginning of a frame", bad)
		}
	}
}

func unspaced(t *testing.T, s string) []byte {
	t.Helper()
	var digits []byte
	for _, c := range []byte(s) {
		if c != ' ' {
			digits = append(digits, c)
		}
	}
	b, err := hex.DecodeString(string(digits))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAnIDIsTheSequenceNumberAndNothingElseIsAnID(t *testing.T) {
	for _, seq := range []uint64{0, 1, 0xabcdef, 1 << 63, math.MaxUint64} {
		id := AppendID(nil, seq)
		if got, ok := ParseID(id); !ok || got != seq || len(id) != IDLen {
			t.Errorf("ParseID(%q) = %d, %v, want %d", id, got, ok, seq)
		}
	}
	for _, id := range []string{"", "0", "000000000000000", "00000000000000000", "000000000000000g", "000000000000000A", " 000000000000001", "-000000000000001"} {
		if seq, ok := ParseID([]byte(id)); ok {
			t.Errorf("ParseID(%q) = %d", id, seq)
		}
	}
}

func TestCommandLinesAreTakenApartAtSingleSpaces(t *testing.T) {
	for line, want := range map[string]Command{
		"NOP\n":           {Name: []byte("NOP")},
		"NOP\r\n":         {Name: []byte("NOP")},
		"NOP":             {Name: []byte("NOP")},
		"\n":              {Name: []byte("")},
		"":                {Name: []byte("")},
		"NOP\r\r\n":       {Name: []byte("NOP\r")},
		"A b\n":           {Name: []byte("A"), Params: [2][]byte{[]byte("b")}, Count: 1},
		"A b c\n":         {Name: []byte("A"), Params: [2][]byte{[]byte("b"), []byte("c")}, Count: 2},
		"A b c d  e\n":    {Name: []byte("A"), Params: [2][]byte{[]byte("b"), []byte("c")}, Count: 5},
		" A\n":            {Name: []byte(""), Params: [2][]byte{[]byte("A")}, Count: 1},
		"A \n":            {Name: []byte("A"), Params: [2][]byte{{}}, Count: 1},
		"A \r b\r\n":      {Name: []byte("A"), Params: [2][]byte{[]byte("\r"), []byte("b")}, Count: 2},
		"A\tb\n":          {Name: []byte("A\tb")},
		"SUB t c\r\n":     {Name: []byte("SUB"), Params: [2][]byte{[]byte("t"), []byte("c")}, Count: 2},
		"PUB t\x00opic\n": {Name: []byte("PUB"), Params: [2][]byte{[]byte("t\x00opic")}, Count: 1},
	} {
		got := ParseCommand([]byte(line))
		if string(got.Name) != string(want.Name) || got.Count != want.Count ||
			string(got.Params[0]) != string(want.Params[0]) || string(got.Params[1]) != string(want.Params[1]) {
			t.Errorf("ParseCommand(%q) = %+v, want %+v", line, got, want)
		}
	}
}

func TestNumbersAreReadAsByNsqd(t *testing.T) {
	for text, want := range map[string]uint64{"": 0, "0": 0, "007": 7, "18446744073709551615": math.MaxUint64, "18446744073709551617": 1} {
		if got, ok := ParseNumber([]byte(text)); !ok || got != want {
			t.Errorf("ParseNumber(%q) = %d, %v, want %d", text, got, ok, want)
		}
	}
	for _, text := range []string{"-1", "+1", "1.5", "0x1", " 1", "1 ", "1s", "１"} {
		if got, ok := ParseNumber([]byte(text)); ok {
			t.Errorf("ParseNumber(%q) = %d", text, got)
		}
	}
}

func TestThreeErrorsLeaveTheConnectionOpen(t *testing.T) {
	for _, code := range []string{
		BadProtocol, Invalid, BadBody, BadTopic, BadChannel, BadMessage, PubFailed, MPubFailed, DPubFailed,
		FinFailed, ReqFailed, TouchFailed, SubFailed, IdentifyFailed, AuthDisabled, AuthFirst, AuthFailed, Unauthorized,
	} {
		open := code == "E_FIN_FAILED" || code == "E_REQ_FAILED" || code == "E_TOUCH_FAILED"
		if err := (&Error{code, "why"}); err.Fatal() == open || err.Error() != code+" why" {
			t.Errorf("%q: fatal is %v", err.Error(), err.Fatal())
		}
	}
}
