package task

import (
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func expand(t *testing.T, in Input, sources int, argv ...string) []string {
	t.Helper()
	template, err := Parse(argv, sources)
	if err != nil {
		t.Fatal(err)
	}
	out, err := template.Expand(in)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestReplacementStringsMeanWhatTheyMeanInGNUParallel(t *testing.T) {
	for _, c := range []struct{ word, input, want string }{
		{"{}", "dir/file.tar.gz", "dir/file.tar.gz"},
		{"{.}", "dir/file.tar.gz", "dir/file.tar"},
		{"{/}", "dir/file.tar.gz", "file.tar.gz"},
		{"{//}", "dir/file.tar.gz", "dir"},
		{"{/.}", "dir/file.tar.gz", "file.tar"},
		{"{#}", "x", "7"},
		{"{%}", "x", "3"},
		{"{1}-{1/.}", "a/b.c", "a/b.c-b"},
		{"out/{#}-{/.}.png", "in/a b.jpg", "out/7-a b.png"},
		{"{}{}", "x", "xx"},

		{"{.}", "dir.d/file", "dir.d/file"},
		{"{.}", ".bashrc", ""},
		{"{.}", "file.", "file."},
		{"{/}", "dir/", ""},
		{"{//}", "file", "."},
		{"{//}", "/file", "/"},
		{"{//}", "a/b/", "a"},
		{"{//}", "a//b", "a"},
		{"{//}", "/", "/"},
		{"{//}", "", "."},

		{"{print $1}", "x", "{print $1}"},
		{"a{2}", "x", "a{2}"},
		{"{0}", "x", "{0}"},
		{"{{}}", "x", "{x}"},
		{"{1#}", "x", "{1#}"},
		{"{", "x", "{"},
		{"", "x", ""},
		{"}{", "x", "}{"},
		{"{99999999999999999999}", "x", "{99999999999999999999}"},
	} {
		got := expand(t, Input{Payload: []byte(c.input), Number: 7, Slot: 3}, 1, "cmd", c.word)
		if got[1] != c.want {
			t.Errorf("%s of %q is %q, want %q", c.word, c.input, got[1], c.want)
		}
	}
}

func TestAnInputIsNeverReadAsAReplacementString(t *testing.T) {
	for _, input := range []string{"{}", "{#}", "{.}.x", "$(reboot)", "'; reboot; '", "-rf", "a\nb"} {
		got := expand(t, Input{Payload: []byte(input)}, 1, "cmd", "{}", "<{}>")
		if want := []string{"cmd", input, "<" + input + ">"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestSeveralSourcesAreOneArgumentEach(t *testing.T) {
	got := expand(t, Input{Payload: []byte("x.c\x00y z")}, 2, "cmd", "{}", "<{}>", "{2}", "{1.}-{2}", "{3}")
	if want := []string{"cmd", "x.c", "y z", "<x.c y z>", "y z", "x-y z", "{3}"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	template, _ := Parse([]string{"cmd", "{}"}, 2)
	for _, payload := range []string{"", "x", "x\x00y\x00z"} {
		if _, err := template.Expand(Input{Payload: []byte(payload)}); !errors.Is(err, ErrSources) {
			t.Errorf("%q of two sources: %v", payload, err)
		}
	}
}

func TestAnArgumentCannotHoldNUL(t *testing.T) {
	template, _ := Parse([]string{"cmd", "{}"}, 1)
	if _, err := template.Expand(Input{Payload: []byte("a\x00b")}); !errors.Is(err, ErrNUL) {
		t.Errorf("got %v", err)
	}
	// Where the input is no argument, it does not matter.
	if got := expand(t, Input{Payload: []byte("a\x00b")}, 1, "cat"); !slices.Equal(got, []string{"cat"}) {
		t.Errorf("got %q", got)
	}
}

func TestNoCommandIsAnError(t *testing.T) {
	for _, argv := range [][]string{nil, {}, {""}} {
		if _, err := Parse(argv, 1); !errors.Is(err, ErrNoCommand) {
			t.Errorf("Parse(%q): %v", argv, err)
		}
	}
}

// The directory and the base name are checked against the system's own.
func TestPathsAreTakenApartAsTheSystemDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		path := rapid.StringMatching(`[a./ ]{1,12}`).Draw(t, "path")
		if got, want := dirName(path), coreutil(t, "dirname", path); got != want {
			t.Fatalf("directory of %q is %q, want %q", path, got, want)
		}
		if strings.HasSuffix(path, "/") {
			return // there GNU Parallel's {/} is empty and basename is not
		}
		if got, want := baseName(path), coreutil(t, "basename", path); got != want {
			t.Fatalf("base name of %q is %q, want %q", path, got, want)
		}
	})
}

func coreutil(t *rapid.T, name, path string) string {
	out, err := exec.Command(name, "--", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(string(out), "\n")
}
