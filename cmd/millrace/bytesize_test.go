package main

import "testing"

func TestSizesAreReadAsPeopleWriteThem(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1": 1, "1000000": 1_000_000, "5B": 5, "5 kB": 5000, "1.5MB": 1_500_000, "1GiB": 1 << 30,
		"1gib": 1 << 30, "2K": 2048, "2k": 2048, "3M": 3 << 20, "1TB": 1e12, "0.5T": 1 << 39,
	} {
		var size byteSize
		if err := size.Set(text); err != nil || int64(size) != want {
			t.Errorf("%q: %d, %v; want %d", text, size, err, want)
		}
		var again byteSize
		if err := again.Set(size.String()); err != nil || again != size {
			t.Errorf("%q: %v became %v", text, size, again)
		}
	}
	for _, text := range []string{"", "x", "GiB", "-1", "1XB", "1e400", "NaN", "Inf", "5%", "9223372036854775807", "99999999TiB"} {
		var size byteSize
		if err := size.Set(text); err == nil {
			t.Errorf("%q was taken for %d", text, size)
		}
	}
}
