package broker_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/internal/vfs"
)

// library is a data directory with two topics of two channels each, and what must come out
// of it.
type library struct {
	files  map[string][]byte
	closed bool
	// open is what each "topic/channel" has not acked.
	open map[string][]string
}

const librarySegment = 3000 // bytes: some sectors, and some segments

func newLibrary(t *testing.T, closed bool) *library {
	disk := vfs.NewMem()
	l := &library{closed: closed, open: map[string][]string{}, files: map[string][]byte{}}
	b := open(t, broker.Options{Dir: "data"}.On(disk).WithSegments(librarySegment))
	r := rand.New(rand.NewPCG(1, 1)) //nolint:gosec // the same each time
	for _, topic := range []string{"t", "u"} {
		for _, channel := range []string{"one", "two"} {
			b.channel(topic, channel)
		}
		for i := range 40 {
			b.publish(topic, fmt.Sprintf("<%s%d>%s", topic, i, strings.Repeat(topic, r.IntN(300))))
		}
		one := b.subscribe(topic, "one", millrace.SubscribeOptions{})
		ds := receive(t, one, 20)
		ack(t, one, ds[:15]...)
		for _, d := range ds[15:] {
			l.open[topic+"/one"] = append(l.open[topic+"/one"], name(d.Body))
		}
		for i := 20; i < 40; i++ {
			l.open[topic+"/one"] = append(l.open[topic+"/one"], fmt.Sprintf("<%s%d>", topic, i))
		}
		for i := range 40 {
			l.open[topic+"/two"] = append(l.open[topic+"/two"], fmt.Sprintf("<%s%d>", topic, i))
		}
	}
	time.Sleep(time.Second)
	if closed {
		_ = b.Close()
	}
	disk = disk.Crash()
	for _, file := range listFiles(t, disk, "data") {
		l.files[file] = contents(t, disk, file)
	}
	return l
}

// name is a body without its filler.
func name(body []byte) string { return string(body[:bytes.IndexByte(body, '>')+1]) }

// with is a disk with the library, and other contents in some files.
func (l *library) with(t *testing.T, changed map[string][]byte) *vfs.Mem {
	disk := vfs.NewMem()
	for file, content := range l.files {
		if other, ok := changed[file]; ok {
			content = other
		}
		if err := disk.MkdirAll(path.Dir(file)); err != nil {
			t.Fatal(err)
		}
		f, err := disk.Create(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = f.WriteAt(content, 0); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
	return disk
}

// losses are the messages whose records a change hits, by name, and those of segments that
// it makes unreadable, because neither header nor footer says what they are.
func (l *library) losses(changed map[string][]byte) map[string]bool {
	lost := map[string]bool{}
	for file, now := range changed {
		if !strings.HasSuffix(file, ".seg") {
			continue
		}
		was := l.files[file]
		same := func(from, to int) bool { return to <= len(now) && bytes.Equal(was[from:to], now[from:to]) }
		end := 128
		for end+33 <= len(was) && binary.LittleEndian.Uint32(was[end:]) != 0xFFFFFFFF {
			next := end + 8 + int(binary.LittleEndian.Uint32(was[end:]))
			if body := was[end+33 : next]; !same(end, next) {
				lost[name(body)] = true
			}
			end = next
		}
		footed := end < len(was) && same(end, len(was)) && len(now) == len(was)
		if !same(0, 64) && !same(64, 128) && !footed {
			for at := 128; at < end; at += 8 + int(binary.LittleEndian.Uint32(was[at:])) {
				lost[name(was[at+33:])] = true
			}
		}
	}
	return lost
}

// check opens the library with a change, and holds what comes out of it to what must.
func (l *library) check(t *testing.T, what string, changed map[string][]byte) {
	t.Helper()
	for file, now := range changed {
		if bytes.Equal(now, l.files[file]) {
			delete(changed, file)
		}
	}
	told := &reports{}
	b, err := broker.Open(broker.Options{Dir: "data", Logger: slog.New(told)}.On(l.with(t, changed)).WithSegments(librarySegment))
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	defer b.Close()
	lost := l.losses(changed)
	for at, must := range l.open {
		topic, channel, _ := strings.Cut(at, "/")
		var got []string
		for _, body := range drain(t, b, topic, channel) {
			if filler := strings.TrimLeft(body[len(name([]byte(body))):], topic); filler != "" || !strings.HasPrefix(body, "<"+topic) {
				t.Errorf("%s: channel %s delivers %q", what, at, body)
			}
			got = append(got, name([]byte(body)))
		}
		for _, body := range must {
			if !slices.Contains(got, body) && !lost[body] {
				t.Errorf("%s: channel %s has lost %s, whose record is whole", what, at, body)
			}
		}
	}
	for file := range changed {
		if !slices.Contains(told.files, file) && !l.looksLikeACrash(file, changed[file]) {
			t.Errorf("%s: %s is damaged, and only %v were reported", what, file, slices.Compact(slices.Sorted(slices.Values(told.files))))
		}
	}
	if t.Failed() {
		t.FailNow()
	}
}

// looksLikeACrash says whether the file just ends sooner, as after a crash may what is
// written lazily, and the segment that was open then: behind a whole record, or if it was
// not closed anywhere.
func (l *library) looksLikeACrash(file string, now []byte) bool {
	if len(now) < 80 || !bytes.HasPrefix(l.files[file], now) {
		return false
	}
	last := strings.HasSuffix(file, ".seg")
	for other := range l.files {
		last = last && (path.Dir(other) != path.Dir(file) || path.Ext(other) != ".seg" || other <= file)
	}
	if !last {
		return strings.HasSuffix(file, ".ledger")
	}
	end := 128
	for end+33 <= len(now) {
		end += 8 + int(binary.LittleEndian.Uint32(now[end:]))
	}
	return end == len(now) || !l.closed
}

// eachLibrary calls f with the library as it is after a clean stop and after a crash.
func eachLibrary(t *testing.T, f func(t *testing.T, l *library, files []string)) {
	for _, closed := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			l := newLibrary(t, closed)
			var files []string
			for file, content := range l.files {
				if len(content) > 0 {
					files = append(files, file)
				}
			}
			slices.Sort(files)
			f(t, l, files)
		})
	}
}

const sectorSize = 512

func TestSectorsThatAreZeroOrAnothersAreReported(t *testing.T) {
	eachLibrary(t, func(t *testing.T, l *library, files []string) {
		for _, file := range files {
			was := l.files[file]
			for at := 0; at < len(was); at += sectorSize {
				end := min(at+sectorSize, len(was))
				zeroed := slices.Clone(was)
				clear(zeroed[at:end])
				l.check(t, fmt.Sprintf("%s with zeros from %d", file, at), map[string][]byte{file: zeroed})
				for _, from := range []int{0, sectorSize, 2 * sectorSize} {
					if from == at || from+end-at > len(was) {
						continue
					}
					doubled := slices.Clone(was)
					copy(doubled[at:end], was[from:])
					l.check(t, fmt.Sprintf("%s with what stands at %d also at %d", file, from, at), map[string][]byte{file: doubled})
				}
			}
		}
	})
}

func TestFilesThatAreCutOffAreReported(t *testing.T) {
	eachLibrary(t, func(t *testing.T, l *library, files []string) {
		r := rand.New(rand.NewPCG(2, 2)) //nolint:gosec // the same each time
		for _, file := range files {
			was := l.files[file]
			for range 40 {
				n := r.IntN(len(was))
				l.check(t, fmt.Sprintf("%s cut to %d of %d bytes", file, n, len(was)), map[string][]byte{file: was[:n]})
			}
		}
	})
}

// Any two files change places, of the same kind or not.
func TestFilesThatAreAnothersAreReported(t *testing.T) {
	eachLibrary(t, func(t *testing.T, l *library, files []string) {
		for i, a := range files {
			for _, b := range files[:i] {
				l.check(t, a+" and "+b+" have changed places", map[string][]byte{a: l.files[b], b: l.files[a]})
			}
		}
	})
}

// Random bytes anywhere, a few or many.
func TestNoiseIsReported(t *testing.T) {
	eachLibrary(t, func(t *testing.T, l *library, files []string) {
		r := rand.New(rand.NewPCG(3, 3)) //nolint:gosec // the same each time
		for range 500 {
			file := files[r.IntN(len(files))]
			noisy := slices.Clone(l.files[file])
			at := r.IntN(len(noisy))
			for i := at; i < min(at+1+r.IntN(2000), len(noisy)); i++ {
				noisy[i] = byte(r.Uint32())
			}
			l.check(t, fmt.Sprintf("%s with noise from %d", file, at), map[string][]byte{file: noisy})
		}
	})
}
