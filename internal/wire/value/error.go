package value

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A codecError says what failed without the text of a cause that might quote a value, as the errors
// of time.Parse and strconv do. errors.Is and errors.As reach the cause.
type codecError struct {
	text  string
	cause error
}

func (e *codecError) Error() string { return e.text }
func (e *codecError) Unwrap() error { return e.cause }

// wrapError returns what a codec's op failed with, an error or a panic, as a codecError. It returns
// nil if there was neither.
func wrapError(op string, err error, panicked any) error {
	if panicked != nil {
		op += ": panic"
		switch p := panicked.(type) {
		case error:
			err = p
		case string:
			err = errors.New(p)
		default:
			err = fmt.Errorf("%T", p)
		}
	}
	if err == nil {
		return nil
	}
	reason := fmt.Sprintf("%T", err)
	if text := fmt.Sprint(err); quotable(text) {
		reason = text
	}
	return &codecError{text: op + ": " + reason, cause: err}
}

// quotable reports whether an error's text speaks of types, lengths and codes only, as far as its
// beginning tells.
func quotable(text string) bool {
	return slices.ContainsFunc(quotablePrefixes, func(p string) bool { return strings.HasPrefix(text, p) })
}

var quotablePrefixes = []string{
	"msgpack: ", "raw: ", "json: unsupported type: ", "reflect", "runtime error: ", "interface conversion: ",
}
