package door

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func tokens(t *testing.T, text string) *Tokens {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	loaded, err := LoadTokens(file)
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

func TestATokenAllowsWhatItsLineSays(t *testing.T) {
	file := tokens(t, fmt.Sprintf(`
# token name rules
shop-1  shop     publish:orders.*
bill-1  billing  subscribe:orders.*/billing read:audit
sha256:%x ops    admin:*
chan-1  channel  admin:orders.eu/billing
wide-1  wide     subscribe:orders.eu
`, sha256.Sum256([]byte("ops-1"))))
	type ask struct {
		token          string
		action         Action
		topic, channel string
		want           bool
	}
	for _, a := range []ask{
		{"shop-1", Publish, "orders.eu", "", true},
		{"shop-1", Publish, "orders", "", false},
		{"shop-1", Publish, "xorders.eu", "", false},
		{"shop-1", Subscribe, "orders.eu", "billing", false},
		{"shop-1", Admin, "orders.eu", "", false},
		{"shop-1", Read, "orders.eu", "", true},
		{"shop-1", Read, "audit", "", false},
		{"bill-1", Subscribe, "orders.eu", "billing", true},
		{"bill-1", Subscribe, "orders.eu", "billing2", false},
		{"bill-1", Publish, "orders.eu", "", false},
		{"bill-1", Read, "orders.eu", "", true},
		{"bill-1", Read, "audit", "", true},
		{"bill-1", Subscribe, "audit", "x", false},
		{"ops-1", Admin, "anything", "", true},
		{"ops-1", Admin, "anything", "ch", true},
		{"ops-1", Publish, "anything", "", true},
		{"ops-1", Subscribe, "anything", "ch", true},
		{"chan-1", Admin, "orders.eu", "billing", true},
		{"chan-1", Subscribe, "orders.eu", "billing", true},
		{"chan-1", Admin, "orders.eu", "other", false},
		{"chan-1", Admin, "orders.eu", "", false},
		{"chan-1", Publish, "orders.eu", "", false},
		{"chan-1", Read, "orders.eu", "", true},
		{"wide-1", Subscribe, "orders.eu", "tail#ephemeral", true},
	} {
		g, ok := file.Grant(a.token)
		if !ok {
			t.Fatalf("token %s is not known", a.token)
		}
		if got := g.Allows(a.action, a.topic, a.channel); got != a.want {
			t.Errorf("%s: Allows(%v, %q, %q) = %v", a.token, a.action, a.topic, a.channel, got)
		}
		if got, want := g.AllowsAll(), a.token == "ops-1"; got != want {
			t.Errorf("%s: AllowsAll() = %v", a.token, got)
		}
	}
	for _, unknown := range []string{"", "shop-2", "#", "sha256:" + fmt.Sprintf("%x", sha256.Sum256([]byte("ops-1")))} {
		if _, ok := file.Grant(unknown); ok {
			t.Errorf("token %q is known", unknown)
		}
	}
}

func TestWithoutATokenFileEverythingIsAllowed(t *testing.T) {
	g, ok := (*Tokens)(nil).Grant("")
	if !ok || !g.AllowsAll() || !g.Allows(Admin, "t", "c") || !g.Allows(Publish, "t", "") {
		t.Error("something is not allowed")
	}
}

func TestABadTokenFileNamesTheLineAndNotTheToken(t *testing.T) {
	for text, want := range map[string]string{
		"secret":                                              "line 1: want a token, a name",
		"\n# x\nsecret name":                                  "line 3: want a token, a name",
		"secret name write:x":                                 `line 1: "write:x": the action must be`,
		"secret name publish":                                 `line 1: "publish": a topic or channel is a name`,
		"secret name publish:":                                `line 1: "publish:": a topic or channel is a name`,
		"secret name publish:a/b":                             "publish is about a topic",
		"secret name subscribe:a/":                            "a topic or channel is a name",
		"secret name subscribe:[a]":                           "a topic or channel is a name",
		"secret name subscribe:a/b/c":                         "a topic or channel is a name",
		"sha256:secret name admin:*":                          "64 hexadecimal digits",
		"sha256:" + strings.Repeat("0", 65) + " name admin:*": "64 hexadecimal digits",
		"sha256:00 name admin:*":                              "64 hexadecimal digits",
		"secret a admin:*\nsecret b read:x":                   "line 2: the token of b is that of a",
	} {
		file := filepath.Join(t.TempDir(), "tokens")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := LoadTokens(file)
		if !errors.Is(err, ErrBadTokens) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, err := LoadTokens(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

func TestReloadTakesNewTokensAndKeepsTheOldOnesOfABadFile(t *testing.T) {
	loaded := tokens(t, "one n admin:*")
	write := func(text string) error {
		if err := os.WriteFile(loaded.file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return loaded.Reload()
	}
	known := func(token string) bool {
		_, ok := loaded.Grant(token)
		return ok
	}
	if err := write("two n nonsense"); err == nil || !known("one") {
		t.Errorf("after a bad reload: %v, the old token is known: %v", err, known("one"))
	}
	if err := write("two n admin:*"); err != nil || known("one") || !known("two") {
		t.Errorf("after a reload: %v, %v, %v", err, known("one"), known("two"))
	}
}
