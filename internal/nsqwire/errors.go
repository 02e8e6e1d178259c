package nsqwire

// The codes of error frames.
const (
	BadProtocol    = "E_BAD_PROTOCOL" // stands alone, without a description
	Invalid        = "E_INVALID"
	BadBody        = "E_BAD_BODY"
	BadTopic       = "E_BAD_TOPIC"
	BadChannel     = "E_BAD_CHANNEL"
	BadMessage     = "E_BAD_MESSAGE"
	PubFailed      = "E_PUB_FAILED"
	MPubFailed     = "E_MPUB_FAILED"
	DPubFailed     = "E_DPUB_FAILED"
	FinFailed      = "E_FIN_FAILED"
	ReqFailed      = "E_REQ_FAILED"
	TouchFailed    = "E_TOUCH_FAILED"
	SubFailed      = "E_SUB_FAILED"
	IdentifyFailed = "E_IDENTIFY_FAILED"
	AuthDisabled   = "E_AUTH_DISABLED"
	AuthFirst      = "E_AUTH_FIRST"
	AuthFailed     = "E_AUTH_FAILED"
	Unauthorized   = "E_UNAUTHORIZED"
)

// Error is what an error frame says: a code for programs, a description for people.
type Error struct {
	Code, Desc string
}

// Error is the data of the frame.
func (e *Error) Error() string { return e.Code + " " + e.Desc }

// Fatal says whether the broker closes the connection after this error. It does not
// when a message could not be settled, because it is not in flight any more.
func (e *Error) Fatal() bool {
	switch e.Code {
	case FinFailed, ReqFailed, TouchFailed:
		return false
	}
	return true
}
