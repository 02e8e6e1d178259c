package differ

import (
	"flag"
	"fmt"
	"os"
	"testing"
)

// Most scripts wait rather than work: many run at a time, whatever the number of cores.
const atATime = "16"

// What is random is the same each time, unless -rapid.seed says otherwise.
var rapidly = map[string]string{"rapid.seed": "1300", "rapid.checks": "40", "rapid.steps": "15", "rapid.nofailfile": "true"}

func TestMain(m *testing.M) {
	flag.Parse()
	given := make(map[string]bool)
	flag.Visit(func(f *flag.Flag) { given[f.Name] = true })
	set := func(name, value string) {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	set("test.parallel", atATime)
	for name, value := range rapidly {
		if !given[name] {
			set(name, value)
		}
	}
	code := m.Run()
	if code == 0 && !given["test.run"] && !given["test.skip"] {
		if missing := table.unproved(); missing != "" {
			fmt.Print(missing)
			code = 1
		}
	}
	os.Exit(code)
}
