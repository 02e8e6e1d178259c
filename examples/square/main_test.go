package main

import (
	"os"
	"strings"
	"testing"
)

// Example runs what README shows.
func Example() {
	main()
	// Output:
	// 0 1
	// 1 4
	// 2 9
}

// TestReadmeShowsThisProgram keeps README's program one that compiles and runs.
func TestReadmeShowsThisProgram(t *testing.T) {
	program, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, code, _ := strings.Cut(string(program), "\npackage main\n")
	if !strings.Contains(string(readme), "```go\npackage main\n"+code+"```\n") {
		t.Error("README.md does not show examples/square/main.go as it is")
	}
}
