package door

import (
	"testing"
	"time"
)

func TestWhereToBeginIsANumberAnIDOrATime(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]from{
		"":                          {},
		"0":                         {},
		"31":                        {seq: 31},
		"000000000000001f":          {seq: 31},
		"00000000000000AB":          {seq: 171},
		"0000000000000010":          {seq: 16},
		"18446744073709551615":      {seq: 1<<64 - 1},
		"90m":                       {at: now.Add(-90 * time.Minute)},
		"0s":                        {at: now},
		"2026-01-31T11:00:00Z":      {at: now.Add(-time.Hour)},
		"2026-01-31T13:00:00+02:00": {at: now.Add(-time.Hour)},
		"2026-01-31T12:00:00.5Z":    {at: now.Add(time.Second / 2)},
	} {
		got, err := parseFrom(text, now)
		if err != nil || got.seq != want.seq || !got.at.Equal(want.at) {
			t.Errorf("%q: %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"x", "-1", "-5m", "1.5", "000000000000000g", "18446744073709551616", "2026-01-31", " 1"} {
		if got, err := parseFrom(text, now); err == nil {
			t.Errorf("%q: %+v", text, got)
		}
	}
}
