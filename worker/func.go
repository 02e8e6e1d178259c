package worker

import (
	"context"
	"encoding/json"
	"fmt"
)

// Func makes a Handler of a function from an input to an output. Both are JSON in
// messages, but for []byte and string, which are passed as they are. An input that
// cannot be decoded, and an output that cannot be encoded, is a permanent error.
//
// A []byte input is read-only, and so is the returned output from then on.
func Func[I, O any](f func(ctx context.Context, input I) (O, error)) Handler {
	decode, encode := decoder[I](), encoder[O]()
	return HandlerFunc(func(ctx context.Context, t *Task) ([]byte, error) {
		input, err := decode(t.Payload)
		if err != nil {
			return nil, Permanent(fmt.Errorf("decode the input as %T: %w", input, err))
		}
		output, err := f(ctx, input)
		if err != nil {
			return nil, err
		}
		b, err := encode(output)
		if err != nil {
			return nil, Permanent(fmt.Errorf("encode the output, a %T: %w", output, err))
		}
		return b, nil
	})
}

// decoder and encoder choose once for the type, so that a task costs no reflection
// and no conversion to an interface when it is bytes.

func decoder[T any]() func([]byte) (T, error) {
	var f any
	switch any((*T)(nil)).(type) {
	case *[]byte:
		f = func(b []byte) ([]byte, error) { return b, nil }
	case *string:
		f = func(b []byte) (string, error) { return string(b), nil }
	default:
		f = func(b []byte) (v T, err error) {
			err = json.Unmarshal(b, &v)
			return v, err
		}
	}
	return f.(func([]byte) (T, error))
}

func encoder[T any]() func(T) ([]byte, error) {
	var f any
	switch any((*T)(nil)).(type) {
	case *[]byte:
		f = func(b []byte) ([]byte, error) { return b, nil }
	case *string:
		f = func(s string) ([]byte, error) { return []byte(s), nil }
	default:
		f = func(v T) ([]byte, error) { return json.Marshal(v) }
	}
	return f.(func(T) ([]byte, error))
}
