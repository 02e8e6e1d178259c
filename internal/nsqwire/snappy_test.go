package nsqwire

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"testing"
)

// expand reads a whole stream.
func expand(stream []byte) ([]byte, error) {
	var data []byte
	first := true
	for len(stream) > 0 {
		if len(stream) < SnappyHeader {
			return data, ErrSnappy
		}
		c, err := ParseSnappyHeader(stream, first)
		if err != nil {
			return data, err
		}
		if first, stream = false, stream[SnappyHeader:]; c.Size > len(stream) {
			return data, ErrSnappy
		}
		if !c.Skip() {
			if data, err = c.Append(data, stream[:c.Size]); err != nil {
				return data, err
			}
		}
		stream = stream[c.Size:]
	}
	return data, nil
}

func samples() map[string][]byte {
	random := rand.NewChaCha8([32]byte{1})
	noise := make([]byte, 200_000)
	_, _ = random.Read(noise)
	mixed := append(append(bytes.Repeat([]byte("abc"), 1000), noise[:3000]...), noise[:2000]...)
	return map[string][]byte{
		"nothing": nil, "a byte": []byte("x"), "four bytes": []byte("xxxx"), "words": []byte("to be or not to be, that is to be"),
		"one byte, often":         bytes.Repeat([]byte("x"), 100_000),
		"a period beyond offsets": bytes.Repeat(noise[:70_000], 2), "a long period": bytes.Repeat(noise[:60_000], 2),
		"noise": noise, "mixed": mixed, "exactly a block": noise[:SnappyBlock], "a block and a byte": noise[:SnappyBlock+1],
		"text": []byte(strings.Repeat("the quick brown fox jumps over the lazy dog. ", 5000)),
	}
}

func TestWhatIsCompressedIsExpandedToTheSame(t *testing.T) {
	for name, data := range samples() {
		stream := AppendSnappy([]byte(SnappyMagic), data)
		got, err := expand(stream)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %v, %d bytes, want the %d that were compressed", name, err, len(got), len(data))
		}
		if most := len(SnappyMagic) + len(data) + 8*(1+len(data)/SnappyBlock); len(stream) > most {
			t.Errorf("%s: %d bytes became %d, want at most %d", name, len(data), len(stream), most)
		}
	}
	if n := len(AppendSnappy(nil, samples()["text"])); n > 20_000 {
		t.Errorf("225 000 bytes of the same became %d", n)
	}
}

// What github.com/golang/snappy v0.0.4 has written, an independent implementation.
func TestStreamsOfAnotherImplementationAreRead(t *testing.T) {
	for stream, want := range map[string]string{
		"ff060000734e61507059 01050000503daa61 78":                                             "x",
		"ff060000734e61507059 001b0000b3d135e7 6808616263fe03001d03202074686520656e642c420900": strings.Repeat("abc", 26) + " the end, the end, the end",
	} {
		if got, err := expand(unspaced(t, stream)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v, want %q", stream, got, err, want)
		}
	}
}

func TestEveryKindOfElementIsExpanded(t *testing.T) {
	long := strings.Repeat("0123456789", 7)
	for block, want := range map[string]string{
		"00":                                 "",
		"03 08 616263":                       "abc",
		"03 f0 02 616263":                    "abc",
		"03 f4 0200 616263":                  "abc",
		"03 f8 020000 616263":                "abc",
		"03 fc 02000000 616263":              "abc",
		"08 04 6162 09 02":                   "abababab",
		"05 00 61 01 01":                     "aaaaa",
		"06 08 616263 0a 0300":               "abcabc",
		"06 08 616263 0b 03000000":           "abcabc",
		"46 f0 45 " + hexed(long):            long,
		"4a f0 45 " + hexed(long) + " 01 46": long + long[:4],
	} {
		got, err := appendExpanded([]byte("before"), unspaced(t, block))
		if err != nil || string(got) != "before"+want {
			t.Errorf("%s: %q, %v, want %q", block, got, err, want)
		}
	}
}

func hexed(s string) string { return hex.EncodeToString([]byte(s)) }

func TestDamagedStreamsAreRefused(t *testing.T) {
	good := AppendSnappy([]byte(SnappyMagic), []byte("to be or not to be or not to be or not to be"))
	for bit := range 8 * len(good) {
		bad := bytes.Clone(good)
		bad[bit/8] ^= 1 << (bit % 8)
		got, err := expand(bad)
		skipped := bit/8 == len(SnappyMagic) && bad[bit/8] >= chunkSkippable && len(got) == 0
		if err == nil && !skipped {
			t.Errorf("bit %d flipped: read as %q", bit, got)
		}
	}
	for name, block := range map[string]string{
		"no size": "", "a size that does not end": "ffffffffff", "a size that is too large": "81 80 04",
		"too little": "05 00 61", "too much": "01 04 6162", "an offset of nothing": "05 00 61 01 00", "an offset too far": "05 00 61 01 02",
		"copied too much": "04 00 61 01 01", "a literal that is cut": "05 10 61", "its length is cut": "05 f0", "a huge literal": "05 fc ffffffff 61",
		"copies that are cut": "05 00 61 01", "another": "05 00 61 02 01", "a third": "05 00 61 03 01 00 00",
	} {
		if got, err := appendExpanded(nil, unspaced(t, block)); err == nil {
			t.Errorf("%s: read as %q", name, got)
		}
	}
	for name, header := range map[string]string{
		"a chunk nobody knows": "02 000000", "no room for a checksum": "01 030000", "a chunk that is too large": "01 ffff01", "a bad magic": "ff 050000",
	} {
		if _, err := ParseSnappyHeader(unspaced(t, header), false); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	for _, first := range []string{"00 100000", "01 100000", "80 000000"} {
		if _, err := ParseSnappyHeader(unspaced(t, first), true); err == nil {
			t.Errorf("a stream that begins with %s is taken", first)
		}
	}
	if c, err := ParseSnappyHeader([]byte("\xfe\xff\xff\xff"), false); err != nil || !c.Skip() || c.Size != 1<<24-1 {
		t.Errorf("padding is %+v, %v, want to skip it", c, err)
	}
}

func FuzzSnappy(f *testing.F) {
	for _, data := range samples() {
		data = data[:min(len(data), 5000)]
		f.Add(data)
		f.Add(AppendSnappy([]byte(SnappyMagic), data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = expand(data)
		if got, err := expand(append([]byte(SnappyMagic), data...)); err == nil && len(got) > 40*len(data) {
			t.Errorf("%d bytes became %d", len(data), len(got))
		}
		got, err := expand(AppendSnappy([]byte(SnappyMagic), data))
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%q became %q, %v", data, got, err)
		}
	})
}

func BenchmarkSnappy(b *testing.B) {
	text := samples()["text"][:40_000]
	b.SetBytes(int64(len(text)))
	var stream, data []byte
	for b.Loop() {
		stream = AppendSnappy(stream[:0], text)
		c, _ := ParseSnappyHeader(stream, false)
		data, _ = c.Append(data[:0], stream[SnappyHeader:])
	}
}
