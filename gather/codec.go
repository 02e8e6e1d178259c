package gather

import "encoding/json"

// encoder appends the message form of an input to a buffer; decoder makes an output
// of a result. Both are chosen once for the type, so that bytes cost neither
// reflection nor a conversion to an interface.
type (
	encoder[I any] func(dst []byte, input I) ([]byte, error)
	decoder[O any] func(result []byte) (O, error)
)

func encoderFor[I any]() encoder[I] {
	var f any
	switch any((*I)(nil)).(type) {
	case *[]byte:
		f = encoder[[]byte](func(dst, b []byte) ([]byte, error) { return append(dst, b...), nil })
	case *string:
		f = encoder[string](func(dst []byte, s string) ([]byte, error) { return append(dst, s...), nil })
	default:
		f = encoder[I](func(dst []byte, input I) ([]byte, error) {
			b, err := json.Marshal(input)
			return append(dst, b...), err
		})
	}
	return f.(encoder[I])
}

func decoderFor[O any]() decoder[O] {
	var f any
	switch any((*O)(nil)).(type) {
	case *[]byte:
		f = decoder[[]byte](func(b []byte) ([]byte, error) { return b, nil })
	case *string:
		f = decoder[string](func(b []byte) (string, error) { return string(b), nil })
	default:
		f = decoder[O](func(b []byte) (output O, err error) {
			err = json.Unmarshal(b, &output)
			return output, err
		})
	}
	return f.(decoder[O])
}
