package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// row is one line of the table: contestants that do the same work in turns.
type row struct {
	name        string
	unit        string            // "/s", or "ms"
	units       map[string]string // of figures that have another
	contestants []*contestant
	bars        []bar
}

// contestant is one of a row.
type contestant struct {
	name string
	// once does the work once and returns its figures, by the names of what they are of;
	// "" where there is only one.
	once    func(context.Context) (map[string]float64, error)
	figures map[string][]float64
}

// bar is what must hold between two contestants, or for one.
type bar struct {
	of, over string  // contestants; without over, ratio is the figure itself
	figure   string  // which of their figures
	ratio    float64 // of over's median, that of's must reach
	atMost   bool    // or must not exceed
}

// measure lets the contestants take turns.
func (s *setup) measure(ctx context.Context, r *row) error {
	for range s.runs {
		for _, c := range r.contestants {
			if err := ctx.Err(); err != nil {
				return err
			}
			figures, err := c.once(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			if c.figures == nil {
				c.figures = make(map[string][]float64)
			}
			for name, figure := range figures {
				c.figures[name] = append(c.figures[name], figure)
			}
			time.Sleep(100 * time.Millisecond) // for what it left behind to end
		}
	}
	return nil
}

// text is the row: every contestant's figures with their ratio to the first's, and
// whether the bars are reached.
func (r *row) text() string {
	var w strings.Builder
	w.WriteString("\n" + r.name + "\n")
	first := r.contestants[0]
	for _, c := range r.contestants {
		for _, name := range sortedKeys(c.figures) {
			figures := c.figures[name]
			middle := median(figures)
			unit := r.unitOf(name)
			line := fmt.Sprintf("  %-26s %-4s %10s%s  (%s – %s)", c.name, name, format(middle, unit), unit, format(slices.Min(figures), unit), format(slices.Max(figures), unit))
			if base := first.figures[name]; c != first && len(base) > 0 {
				line = fmt.Sprintf("%-72s %6.2f × %s", line, middle/median(base), first.name)
			}
			w.WriteString(line + "\n")
		}
	}
	for _, b := range r.bars {
		w.WriteString("  " + r.judge(b) + "\n")
	}
	return w.String()
}

// judge says whether the bar is reached.
func (r *row) judge(b bar) string {
	of := r.median(b.of, b.figure)
	if b.over == "" {
		verdict, unit := "reached", r.unitOf(b.figure)
		if of < b.ratio {
			verdict = "MISSED"
		}
		return fmt.Sprintf("%s: %s %s is %s%s, wanted at least %s%s", verdict, b.of, b.figure, format(of, unit), unit, format(b.ratio, unit), unit)
	}
	over := r.median(b.over, b.figure)
	ratio := of / over
	reached, relation := ratio >= b.ratio, "at least"
	if b.atMost {
		reached, relation = ratio <= b.ratio, "at most"
	}
	verdict := "reached"
	if !reached {
		verdict = "MISSED"
	}
	return fmt.Sprintf("%s: %s %s of %s is %.2f, wanted %s %.2f", verdict, b.of, b.figure, b.over, ratio, relation, b.ratio)
}

func (r *row) median(contestant, figure string) float64 {
	for _, c := range r.contestants {
		if c.name == contestant {
			return median(c.figures[figure])
		}
	}
	panic("no contestant " + contestant)
}

func (r *row) unitOf(figure string) string {
	if unit, ok := r.units[figure]; ok {
		return unit
	}
	return r.unit
}

// format writes a figure in its unit: rates in thousands, others with two digits.
func format(f float64, unit string) string {
	if unit == "/s" {
		return fmt.Sprintf("%.1f k", f/1000)
	}
	return fmt.Sprintf("%.2f ", f)
}

func median(figures []float64) float64 {
	if len(figures) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(figures))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}

func sortedKeys(m map[string][]float64) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
