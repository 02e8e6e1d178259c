// Package crash holds only a test: it kills "millrace serve" with SIGKILL under load, again
// and again, and looks for what was acknowledged and never came, and for what came and
// was never published. For more kills: go test ./crash -kills 500
package crash
