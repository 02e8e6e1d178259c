package differ

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/peers/node"
)

// patience is how long a session waits for a frame that must come; it fails the test.
const patience = 10 * time.Second

// aMoment is how long nothing must come where nothing must come.
const aMoment = 80 * time.Millisecond

// session plays one script on one broker, and writes down what comes back.
type session struct {
	t     *testing.T
	node  *node.Node
	topic string           // what {T} stands for
	conns map[string]*conn // by the name the script gives them
	ids   []string         // of messages, in the order in which they came: <1>, <2>…
	log   []string         // the transcript

	stamps map[string]time.Time // of messages, by their ids: each has one for ever

	byBody map[string]string // ids of messages, where the script names them by their bodies
	over   bool              // the connection of a random test says nothing more
}

// conn is a client's connection.
type conn struct {
	net.Conn
	name string
	in   io.Reader
	port string // the client's own
}

func newSession(t *testing.T, n *node.Node, topic string) *session {
	return &session{t: t, node: n, topic: topic, conns: make(map[string]*conn), stamps: make(map[string]time.Time)}
}

func (s *session) close() {
	for _, c := range s.conns {
		_ = c.Close()
	}
}

// abandon ends the goroutine that plays the script, and fails the test.
func (s *session) abandon(format string, args ...any) {
	s.t.Errorf("%s: %s", s.node.Name, fmt.Sprintf(format, args...))
	runtime.Goexit()
}

// note adds a line to the transcript.
func (s *session) note(format string, args ...any) {
	s.log = append(s.log, fmt.Sprintf(format, args...))
}

// dial connects under a name that is new, or whose connection is no longer wanted.
func (s *session) dial(name string) *conn {
	if old := s.conns[name]; old != nil {
		_ = old.Close()
	}
	raw, err := net.Dial("tcp", s.node.TCP)
	if err != nil {
		s.abandon("dial: %v", err)
	}
	_, port, _ := net.SplitHostPort(raw.LocalAddr().String())
	c := &conn{Conn: raw, name: name, in: bufio.NewReaderSize(raw, 1<<16), port: port}
	s.conns[name] = c
	return c
}

func (s *session) conn(name string) *conn {
	c := s.conns[name]
	if c == nil {
		s.abandon("the script has no connection %q", name)
	}
	return c
}

// write sends what the script says, with the topic and the messages' ids filled in.
func (s *session) write(name, text string) {
	c := s.conn(name)
	_ = c.SetWriteDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c.Conn, s.expand(text)); err != nil {
		// The broker has closed: what comes back is compared, not when it closed.
		s.t.Logf("%s: %s: write: %v", s.node.Name, name, err)
	}
}

var (
	place  = regexp.MustCompile(`<(\d+)>`)
	placed = regexp.MustCompile(`\{body:(\w+)\}`)
)

// expand fills in {T} and the ids of messages.
func (s *session) expand(text string) string {
	text = strings.ReplaceAll(text, "{T}", s.topic)
	text = placed.ReplaceAllStringFunc(text, func(name string) string {
		return s.byBody[placed.FindStringSubmatch(name)[1]]
	})
	return place.ReplaceAllStringFunc(text, func(name string) string {
		i, _ := strconv.Atoi(strings.Trim(name, "<>"))
		if i < 1 || i > len(s.ids) {
			return name
		}
		return s.ids[i-1]
	})
}

// named gives what is the broker's own choice the name that the script has for it.
func (s *session) named(text string) string {
	for i, id := range s.ids {
		text = strings.ReplaceAll(text, id, fmt.Sprintf("<%d>", i+1))
	}
	for body, id := range s.byBody {
		text = strings.ReplaceAll(text, id, "<"+body+">")
	}
	return text
}

func (s *session) idName(id string) string {
	i := slices.Index(s.ids, id)
	if i < 0 {
		i = len(s.ids)
		s.ids = append(s.ids, id)
	}
	return fmt.Sprintf("<%d>", i+1)
}

// frame reads the next frame that is no heartbeat, within a time, and returns a line
// that tells it.
func (s *session) frame(c *conn, within time.Duration) string {
	for {
		line := s.anyFrame(c, within)
		if line != heartbeat {
			return line
		}
	}
}

// wanted is frame for one that must come.
func (s *session) wanted(name string) string {
	line := s.frame(s.conn(name), patience)
	if line == silent {
		return late
	}
	return line
}

const heartbeat = `response "_heartbeat_"`

// What a line says when there was no frame.
const (
	ended  = "end"      // the broker closed the connection
	silent = "nothing"  // nothing came, and nothing should have
	late   = "late"     // nothing came within patience
	broken = "broken: " // what came is no frame
)

func (s *session) anyFrame(c *conn, within time.Duration) string {
	_ = c.SetReadDeadline(time.Now().Add(within))
	kind, data, err := readFrame(c.in)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return silent
	case err != nil:
		if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
			return broken + err.Error()
		}
		return ended
	}
	switch kind {
	case 0:
		return "response " + tell(s.normal(string(data)))
	case 1:
		return "error " + tell(s.named(string(data)))
	case 2:
		return s.message(data)
	}
	return fmt.Sprintf("frame of type %d: %s", kind, tell(string(data)))
}

var messageID = regexp.MustCompile(`^[0-9a-f]{16}$`)

// message tells a message frame: its attempt, its id, its body, and what is wrong with
// its timestamp and the form of its id.
func (s *session) message(data []byte) string {
	if len(data) < 26 {
		return fmt.Sprintf("message of %d bytes", len(data))
	}
	stamp := time.Unix(0, int64(binary.BigEndian.Uint64(data)))
	id, wrong := string(data[10:26]), ""
	if age := time.Since(stamp); age < -time.Second || age > time.Minute {
		wrong += fmt.Sprintf(" stamped %v ago", age)
	}
	if !messageID.MatchString(id) {
		wrong += fmt.Sprintf(" with an id like %q", id)
	}
	if was, known := s.stamps[id]; known && was != stamp {
		wrong += fmt.Sprintf(" stamped %v later", stamp.Sub(was))
	}
	s.stamps[id] = stamp
	return fmt.Sprintf("message %s attempt %d %s%s", s.idName(id),
		binary.BigEndian.Uint16(data[8:]), tell(s.named(string(data[26:]))), wrong)
}

func readFrame(r io.Reader) (kind uint32, data []byte, err error) {
	var header [8]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(header[:])
	if size < 4 || size > 1<<26 {
		return 0, nil, fmt.Errorf("a frame of %d bytes", size)
	}
	data = make([]byte, size-4)
	_, err = io.ReadFull(r, data)
	return binary.BigEndian.Uint32(header[4:]), data, err
}

// tell quotes, but of what is long only the beginning, the length and a checksum.
func tell(text string) string {
	if len(text) <= 5000 {
		return strconv.Quote(text)
	}
	return fmt.Sprintf("%q… %d bytes %08x", text[:60], len(text), crc32.ChecksumIEEE([]byte(text)))
}
