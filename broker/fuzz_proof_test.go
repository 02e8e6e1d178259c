package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace"
	"github.com/millrace/millrace/internal/vfs"
)

// fuzzed are the files of a data directory whose bytes the fuzzer chooses, one at a time.
var fuzzed = []string{
	"data/FORMAT", "data/topics/t.topic/RELEASED", "data/topics/t.topic/c.ledger", "data/topics/t.topic/0000000000000001.seg",
}

const fuzzBodies = 12

// fuzzDirectory is a small data directory: messages that are acked, deferred, given back
// and untouched, with a topic that is paused. Its files are not yet damaged.
func fuzzDirectory(t interface{ Fatal(...any) }) map[string][]byte {
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	disk := vfs.NewMem()
	b, err := Open(Options{Dir: "data", Logger: slog.New(slog.DiscardHandler)}.On(disk))
	must(err)
	ch, err := b.Channel("t", "c")
	must(err)
	for i := range fuzzBodies {
		m := millrace.Message{Body: fmt.Appendf(nil, "body %d", i)}
		if i == 3 {
			m.Delay = time.Hour
		}
		if i == 4 {
			m.Headers = millrace.Headers(nil).Append("key", "value")
		}
		must(b.Publish("t", []millrace.Message{m}))
	}
	c, err := ch.subscribe(millrace.SubscribeOptions{}.WithDefaults())
	must(err)
	ds := make([]millrace.Delivery, 6)
	n, err := c.Receive(context.Background(), ds)
	must(err)
	must(c.Ack(context.Background(), ds[:n/2]...))
	must(c.Nack(context.Background(), time.Hour, ds[n/2]))
	must(ch.Pause())
	must(ch.Unpause())
	must(b.Lookup("t").Pause())
	must(b.Publish("t", []millrace.Message{{Body: []byte("body 0")}}))
	must(b.Close())
	files := make(map[string][]byte)
	for _, name := range fuzzed {
		content, err := vfs.ReadFile(disk, name)
		must(err)
		files[name] = content
	}
	return files
}

// onDisk is a disk with these files, one of them with other bytes.
func onDisk(t interface{ Fatal(...any) }, files map[string][]byte, other string, content []byte) *vfs.Mem {
	disk := vfs.NewMem()
	if err := disk.MkdirAll("data/topics/t.topic"); err != nil {
		t.Fatal(err)
	}
	for name, was := range files {
		if name == other {
			was = content
		}
		f, err := disk.Create(name)
		if err == nil && len(was) > 0 {
			_, err = f.WriteAt(was, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
	return disk
}

// mendJournal sets right the checksums of a journal's headers and of the entries, as far as
// their lengths lead from one to the next, so that the fuzzer gets past them.
func mendJournal(b []byte, path string) {
	if len(b) < headersSize {
		return
	}
	for at := 0; at < headersSize; at += headerSize {
		copy(b[at:], journalMagic)
		binary.LittleEndian.PutUint32(b[at+8:], journalVersion)
		putCRC(b[at:at+headerSize], path)
	}
	salt := binary.LittleEndian.Uint64(b[headerSize+16:])
	for at := headersSize; at+frameSize < len(b); {
		n := min(int(binary.LittleEndian.Uint32(b[at:])%512), len(b)-at-frameSize)
		if n == 0 {
			break
		}
		putFrame(b[at:at+frameSize+n], salt, int64(at))
		at += frameSize + n
	}
}

func mendReleased(b []byte, path string) {
	for at := 0; at+releasedSize <= len(b) && at < 2*releasedSize; at += releasedSize {
		copy(b[at:], releasedMagic)
		binary.LittleEndian.PutUint32(b[at+8:], releasedVersion)
		putCRC(b[at:at+releasedSize], path)
	}
}

// FuzzOpen opens a data directory in which one file has arbitrary bytes, twice. It opens, or
// says that a newer version wrote it; it delivers no more than was published, and can be
// used and closed.
func FuzzOpen(f *testing.F) {
	files := fuzzDirectory(f)
	for which, name := range fuzzed {
		good := files[name]
		for _, mend := range []bool{false, true} {
			f.Add(uint8(which), good, mend)                      //nolint:gosec // few
			f.Add(uint8(which), good[:len(good)/2], mend)        //nolint:gosec // few
			f.Add(uint8(which), slices.Concat(good, good), mend) //nolint:gosec // few
		}
		f.Add(uint8(which), []byte{}, false) //nolint:gosec // few
	}
	f.Add(uint8(0), []byte(formatLine(2)), false)
	f.Add(uint8(0), []byte("millrace 4294967295 00000000\n"), false)
	f.Fuzz(func(t *testing.T, which uint8, content []byte, mend bool) {
		name := fuzzed[int(which)%len(fuzzed)]
		if content = slices.Clone(content); mend && strings.HasSuffix(name, ledgerSuffix) {
			mendJournal(content, name)
		} else if mend && strings.HasSuffix(name, releasedName) {
			mendReleased(content, name)
		}
		disk := onDisk(t, files, name, content)
		defer func(start time.Time) {
			if took := time.Since(start); took > 2*time.Second {
				t.Errorf("it took %v", took)
			}
		}(time.Now())
		for range 2 {
			b, err := Open(Options{Dir: "data", Logger: slog.New(slog.DiscardHandler)}.On(disk))
			if errors.Is(err, ErrNewerVersion) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if topic := b.Lookup("t"); topic != nil {
				if err := topic.Unpause(); err != nil {
					t.Error(err)
				}
			}
			if err := b.Publish("t", []millrace.Message{{Body: []byte("body 0")}}); err != nil {
				t.Error(err)
			}
			consumeAll(t, b)
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// consumeAll acks half of what the channels have, and gives back the other.
func consumeAll(t *testing.T, b *Broker) {
	for _, ch := range b.Lookup("t").Channels() {
		if err := ch.Unpause(); err != nil {
			t.Error(err)
		}
		c, err := ch.subscribe(millrace.SubscribeOptions{Prefetch: 1000}.WithDefaults())
		if err != nil {
			t.Error(err)
			return
		}
		var buf [8]millrace.Delivery
		for range 100 {
			n, err := c.TryReceive(buf[:])
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Error(err)
			}
			if n == 0 {
				break
			}
			for _, d := range buf[:n] {
				var i int
				if _, err := fmt.Sscanf(string(d.Body), "body %d", &i); err != nil || i >= fuzzBodies {
					t.Errorf("it delivers %q", d.Body)
				}
			}
			if err := c.Ack(t.Context(), buf[:n/2]...); err != nil {
				t.Error(err)
			}
		}
		_ = c.Close()
	}
}

// The seeds are what they should be: files as a broker writes them, with something of
// everything, and none of them damaged.
func TestTheFuzzSeedsAreGoodFiles(t *testing.T) {
	files := fuzzDirectory(t)
	disk := onDisk(t, files, "", nil)
	var said strings.Builder
	b, err := Open(Options{Dir: "data", Logger: slog.New(slog.NewTextHandler(&said, nil))}.On(disk))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if strings.Contains(said.String(), "damage") {
		t.Error(said.String())
	}
	topic := b.Lookup("t")
	if topic == nil || !topic.Paused() || topic.Depth() != 1 || topic.Lookup("c") == nil {
		t.Fatalf("topic %+v", topic)
	}
	if s := topic.Lookup("c").Stats(); s.Deferred != 2 || s.Ready != fuzzBodies-4 {
		t.Errorf("%+v", s)
	}
}
