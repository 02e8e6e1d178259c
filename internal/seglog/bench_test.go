package seglog_test

import (
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/seglog"
	"github.com/millrace/millrace/internal/vfs"
)

// BenchmarkAppend appends 200-byte bodies in batches of 200 from two goroutines.
func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct {
		name     string
		interval time.Duration
		memory   bool
	}{{"memory", 0, true}, {"sync=2s", 2 * time.Second, false}, {"sync=always", seglog.SyncAlways, false}} {
		b.Run(c.name, func(b *testing.B) { benchmarkAppend(b, c.interval, c.memory) })
	}
}

func openBench(b *testing.B, interval time.Duration, memory bool) *seglog.Log {
	b.Helper()
	opts := seglog.Options{}
	if !memory {
		dir := filepath.Join(b.TempDir(), "log")
		if err := vfs.OS().MkdirAll(dir); err != nil {
			b.Fatal(err)
		}
		c := seglog.NewCommitter(interval, nil)
		b.Cleanup(c.Close)
		opts = seglog.Options{FS: vfs.OS(), Dir: dir, Committer: c, Tail: seglog.NewTail(8 << 20)}
	}
	l, err := seglog.Open(opts)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := l.Close(); err != nil {
			b.Error(err)
		}
	})
	return l
}

func benchmarkAppend(b *testing.B, interval time.Duration, memory bool) {
	const batch, publishers = 200, 2
	l := openBench(b, interval, memory)
	body := make([]byte, 200)
	b.SetBytes(200)
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for range publishers {
		wg.Go(func() {
			for i := 0; i < b.N/publishers; i += batch {
				t, err := l.Append(1, batch, func(int) seglog.Entry { return seglog.Entry{Body: body} })
				if err == nil {
					err = l.Commit(t)
				}
				if err != nil {
					b.Error(err)
					return
				}
				for _, s := range l.Sealed() {
					_ = l.Remove(s.Base)
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
}

// BenchmarkRead reads 200-byte bodies back from memory and from files.
func BenchmarkRead(b *testing.B) {
	for _, memory := range []bool{true, false} {
		name := map[bool]string{true: "memory", false: "file"}[memory]
		b.Run(name, func(b *testing.B) {
			l := openBench(b, 2*time.Second, memory)
			body := make([]byte, 200)
			const total = 1_000_000
			for range total / 1000 {
				t, err := l.Append(1, 1000, func(int) seglog.Entry { return seglog.Entry{Body: body} })
				if err == nil {
					err = l.Commit(t)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			dst := make([]seglog.Record, 256)
			b.SetBytes(200)
			b.ReportAllocs()
			b.ResetTimer()
			for read := 0; read < b.N; {
				r := l.NewReader(1)
				for read < b.N {
					n, err := r.Read(dst)
					if err != nil {
						b.Fatal(err)
					}
					if n == 0 {
						break
					}
					read += n
				}
				r.Close()
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
		})
	}
}
