package door

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"sync/atomic"
)

// ErrBadTokens is returned when a token file cannot be understood. The error that wraps
// it names the line.
var ErrBadTokens = errors.New("door: bad token file")

// Action is what a token may allow its bearer to do with a topic.
type Action uint8

// The actions. Whoever may do anything with a topic may read it; an admin may do all.
const (
	// Read is to see a topic's existence, counts and clients.
	Read Action = iota
	// Publish is to publish to a topic, which creates it.
	Publish
	// Subscribe is to consume from a channel, which creates it, and to look into it.
	Subscribe
	// Admin is to create, delete, empty, pause and replay a topic or channel.
	Admin
)

var actions = map[string]Action{"read": Read, "publish": Publish, "subscribe": Subscribe, "admin": Admin}

// Tokens says who may do what on both doors: over TCP the token is the secret of AUTH,
// over HTTP the one of "Authorization: Bearer", or the password of Basic.
//
// They come from a file with a line for each:
//
//	# token          name      what it may do: ACTION:TOPIC or ACTION:TOPIC/CHANNEL
//	9f86d081884c7d65 shop      publish:orders.*
//	5e884898da280471 billing   subscribe:orders.*/billing read:*
//	sha256:2cf24d…   ops       admin:*
//
// The actions are read, publish, subscribe and admin. In a topic or channel, * stands for
// any characters and ? for one; without a channel all are meant. The sha256 of a token in
// hexadecimal may stand for it, so that the file gives away no secret.
//
// A nil *Tokens allows everything to everybody.
type Tokens struct {
	file   string
	grants atomic.Pointer[map[[sha256.Size]byte]*Grant]
}

// Grant is what one token allows.
type Grant struct {
	// Name tells people whose token it is. It is no secret.
	Name  string
	rules []rule
}

type rule struct {
	action         Action
	topic, channel string // patterns
}

// LoadTokens reads a token file. Returns what the file system says, or an error that
// wraps ErrBadTokens.
func LoadTokens(file string) (*Tokens, error) {
	t := &Tokens{file: file}
	if err := t.Reload(); err != nil {
		return nil, err
	}
	return t, nil
}

// Reload reads the file again. When it cannot be read the tokens stay as they were.
// Connections that have authenticated keep what their token allowed then.
func (t *Tokens) Reload() error {
	text, err := os.ReadFile(t.file)
	if err != nil {
		return fmt.Errorf("read tokens: %w", err)
	}
	grants, err := parseTokens(text)
	if err != nil {
		return fmt.Errorf("%w: %s, %w", ErrBadTokens, t.file, err)
	}
	t.grants.Store(&grants)
	return nil
}

// Grant returns what the token allows; false when there is no such token.
func (t *Tokens) Grant(token string) (*Grant, bool) {
	if t == nil {
		return everything, true
	}
	// A map of digests: how long the search takes tells nothing about the tokens.
	g, ok := (*t.grants.Load())[sha256.Sum256([]byte(token))]
	return g, ok
}

var everything = &Grant{rules: []rule{{action: Admin, topic: "*", channel: "*"}}}

// Allows says whether the action is allowed on the topic, or, unless channel is "", on
// that channel of it.
func (g *Grant) Allows(action Action, topic, channel string) bool {
	for _, r := range g.rules {
		if r.allows(action) && match(r.topic, topic) && (action == Read || match(r.channel, channel)) {
			return true
		}
	}
	return false
}

// AllowsAll says whether its bearer is admin of everything, and so of the broker itself.
func (g *Grant) AllowsAll() bool {
	for _, r := range g.rules {
		if r == everything.rules[0] {
			return true
		}
	}
	return false
}

func (r rule) allows(action Action) bool {
	return r.action == action || r.action == Admin || action == Read
}

// match says whether the pattern stands for the name. For "", the topic itself in place of
// one of its channels, only * stands: whoever is admin of one channel cannot delete the
// topic around it.
func match(pattern, name string) bool {
	ok, _ := path.Match(pattern, name) // the pattern was checked
	return ok
}

func parseTokens(text []byte) (map[[sha256.Size]byte]*Grant, error) {
	grants := make(map[[sha256.Size]byte]*Grant)
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		digest, grant, err := parseGrant(fields)
		if err == nil && grants[digest] != nil {
			err = fmt.Errorf("the token of %s is that of %s", grant.Name, grants[digest].Name)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		grants[digest] = grant
	}
	return grants, lines.Err()
}

// parseGrant takes apart the fields of a line. Its errors quote everything but the token.
func parseGrant(fields []string) (digest [sha256.Size]byte, g *Grant, err error) {
	if len(fields) < 3 {
		return digest, nil, errors.New("want a token, a name, and one or more of ACTION:TOPIC/CHANNEL")
	}
	if hexed, ok := strings.CutPrefix(fields[0], "sha256:"); !ok {
		digest = sha256.Sum256([]byte(fields[0]))
	} else if n, err := hex.Decode(digest[:], []byte(hexed[:min(len(hexed), 2*len(digest))])); err != nil || n < len(digest) || len(hexed) > 2*len(digest) {
		return digest, nil, errors.New("what follows sha256: is not 64 hexadecimal digits")
	}
	g = &Grant{Name: fields[1]}
	for _, f := range fields[2:] {
		r, err := parseRule(f)
		if err != nil {
			return digest, nil, fmt.Errorf("%q: %w", f, err)
		}
		g.rules = append(g.rules, r)
	}
	return digest, g, nil
}

func parseRule(s string) (rule, error) {
	name, pattern, _ := strings.Cut(s, ":")
	action, ok := actions[name]
	if !ok {
		return rule{}, errors.New("the action must be read, publish, subscribe or admin")
	}
	topic, channel, given := strings.Cut(pattern, "/")
	if !given {
		channel = "*"
	} else if action == Publish || action == Read {
		return rule{}, fmt.Errorf("%s is about a topic, not a channel", name)
	}
	for _, p := range []string{topic, channel} {
		if !goodPattern(p) {
			return rule{}, errors.New("a topic or channel is a name, in which * and ? stand for other characters")
		}
	}
	return rule{action: action, topic: topic, channel: channel}, nil
}

// goodPattern takes what can match a name, so that a slip of the pen is noticed.
func goodPattern(p string) bool {
	for _, c := range p {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.ContainsRune("._-#*?", c):
		default:
			return false
		}
	}
	return p != ""
}
