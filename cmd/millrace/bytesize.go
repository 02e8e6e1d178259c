package main

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// byteSize is a flag's value: a number of bytes, or of larger units, as in 500MB or 1GiB.
type byteSize int64

// units are what may stand behind the number. A letter alone is what it is to ls and du.
var units = map[string]float64{
	"": 1, "b": 1,
	"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
	"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40,
	"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
}

func (s *byteSize) String() string { return strconv.FormatInt(int64(*s), 10) }

func (s *byteSize) Type() string { return "bytes" }

// Get is what /config tells.
func (s *byteSize) Get() any { return int64(*s) }

func (s *byteSize) Set(text string) error {
	number := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	unit, known := units[strings.ToLower(text[len(number):])]
	n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if n *= unit; err != nil || !known || !(n >= 0 && n < math.MaxInt64) {
		return errors.New("write a number of bytes, or a size such as 500MB or 1GiB")
	}
	*s = byteSize(n)
	return nil
}
