// Package crash holds only a test: it kills "millrace serve" with SIGKILL under load, again
// and again, and looks for what was acknowledged and never came, what came and was never
// published, what came again long after it was finished, and what was created, paused or
// deleted and is not so. For more kills: go test ./crash -kills 500
package crash
