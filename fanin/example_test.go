package fanin_test

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/millrace/millrace/fanin"
)

// Two sources are merged into one stream, which is read in batches until it ends.
func Example() {
	ctx := context.Background()
	m := fanin.New(fanin.Config[string]{})
	for _, name := range []string{"a", "b"} {
		source := func(ctx context.Context, emit fanin.Emit[string]) error {
			for i := range 3 {
				if err := emit(ctx, fmt.Sprint(name, i)); err != nil {
					return err
				}
			}
			return nil
		}
		if _, err := m.Add(name, source); err != nil {
			fmt.Println(err)
		}
	}
	m.Close() // no more sources

	served := make(chan error, 1)
	go func() { served <- m.Serve(ctx) }()

	var all []string
	batch := make([]string, 64)
	for {
		n, err := m.RecvBatch(ctx, batch)
		if errors.Is(err, fanin.ErrClosed) {
			break
		}
		all = append(all, batch[:n]...)
	}
	slices.Sort(all) // between sources there is no order
	fmt.Println(all, <-served)
	// Output: [a0 a1 a2 b0 b1 b2] <nil>
}

// Leaving the loop early stops the sequences and waits for them.
func ExampleMergeSeq() {
	naturals := func(yield func(int) bool) {
		for i := 0; yield(i); i++ {
		}
	}
	for v := range fanin.MergeSeq(context.Background(), naturals) {
		if v == 3 {
			break
		}
		fmt.Println(v)
	}
	// Output:
	// 0
	// 1
	// 2
}
