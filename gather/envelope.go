package gather

import (
	"crypto/rand"
	"strconv"
	"strings"

	"github.com/millrace/millrace"
)

// idLen is the length of a job's id: 80 random bits in base 32.
const idLen = 16

// newID returns a random id, for a job or a reply topic.
func newID() string { return strings.ToLower(rand.Text()[:idLen]) }

// requestID is the id of request number index of a job: the job's id, a dash, and
// the index in decimal.
func requestID(job string, index int64) string {
	return job + "-" + strconv.FormatInt(index, 10)
}

// parseID is the inverse of requestID: no other id is taken for a request's. The job
// shares memory with id.
func parseID(id []byte) (job []byte, index int64, ok bool) {
	if len(id) < idLen+2 || len(id) > idLen+1+18 || id[idLen] != '-' {
		return nil, 0, false
	}
	digits := id[idLen+1:]
	if digits[0] == '0' && len(digits) > 1 {
		return nil, 0, false
	}
	for _, c := range digits {
		if c < '0' || c > '9' {
			return nil, 0, false
		}
		index = 10*index + int64(c-'0')
	}
	return id[:idLen], index, true
}

// commonHeaders returns the headers that all requests of a client have after their id.
func commonHeaders(replyTo string, cfg *Config) millrace.Headers {
	h := millrace.Headers(nil).Append(millrace.HeaderReplyTo, replyTo)
	if cfg.Retries != 0 {
		h = h.Append(millrace.HeaderRetries, strconv.Itoa(max(0, cfg.Retries)))
	}
	if cfg.Timeout > 0 {
		h = h.Append(millrace.HeaderTimeout, cfg.Timeout.String())
	}
	return h
}

// appendHeaders appends the headers of one request to dst. The id comes first: it is
// what everybody looks for.
func appendHeaders(dst millrace.Headers, job string, index int64, common millrace.Headers) millrace.Headers {
	var buf [idLen + 20]byte
	id := append(append(buf[:0], job...), '-')
	id = strconv.AppendInt(id, index, 10)
	return append(dst.Append(millrace.HeaderID, string(id)), common...)
}

// isError says whether a result is an error.
func isError(h millrace.Headers) bool {
	_, hasText := h.Get(millrace.HeaderError)
	_, hasKind := h.Get(millrace.HeaderErrorKind)
	return hasText || hasKind
}

// taskError returns the error that an answer is, nil when it is a value.
func taskError(job string, a *answer) *TaskError {
	if a.failure != nil {
		return a.failure
	}
	if !isError(a.headers) {
		return nil
	}
	e := &TaskError{
		ID: requestID(job, a.index), Kind: a.headers.Text(millrace.HeaderErrorKind),
		Message:  strings.ToValidUTF8(a.headers.Text(millrace.HeaderError), "\uFFFD"),
		ExitCode: -1, Attempts: attempts(a.headers),
	}
	if e.Kind == "" {
		e.Kind = KindFailed
	}
	if code, err := strconv.Atoi(a.headers.Text(millrace.HeaderExitCode)); err == nil {
		e.ExitCode = code
	}
	return e
}

// attempts returns how often the task was run; 1 when the result does not say.
func attempts(h millrace.Headers) int {
	v, ok := h.Get(millrace.HeaderAttempts)
	if !ok {
		return 1
	}
	if len(v) == 1 && v[0] >= '1' && v[0] <= '9' { // nearly always
		return int(v[0] - '0')
	}
	n, err := strconv.Atoi(string(v))
	if err != nil || n < 0 {
		return 1
	}
	return n
}
