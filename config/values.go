package config

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/core-tools/hsu-master/internal/nearest"
)

// form describes the values that a key takes: for messages, for the reference, and for the JSON Schema.
type form struct {
	name string // "a duration such as 90s, 5m or 7d"
	// json is the type in JSON: string, integer, number, boolean, array or object.
	json    string
	pattern string   // of a string; "" means any
	allowed []string // the words that are allowed, if only some are
	words   []string // the words that are allowed besides what json says
	least   *float64
	most    *float64
	items   *form // of an array, or of an object whose keys are free
	keys    []key // of an object whose keys are fixed
}

// scalar is a variable whose value is one word or text.
type scalar[T any] struct {
	at    *T
	parse func(text string) (T, error) // the error names the valid texts
	in    form
	use   use
}

// valueError is the error of a parse whose text has a part of the value. It is not shown for the value of a variable,
// which may be secret.
type valueError struct{ error }

func (e valueError) Unwrap() error { return e.error }

func (s scalar[T]) form() form { return s.in }

func (s scalar[T]) read(r *reader, n *node) {
	text, ok := r.text(n, s.use, s.in.name)
	if !ok {
		return
	}
	v, err := s.parse(text)
	if err != nil {
		replaced := ""
		if text != n.text {
			replaced = ", with its variables replaced,"
			if _, shown := errors.AsType[valueError](err); shown {
				err = errors.New("must be " + s.in.name)
			}
		}
		r.fault(n, "%s%s %s", r.quote(n), replaced, err)
		return
	}
	*s.at = v
}

// text is any text but the empty one.
func text(at *string) value { return textFor(at, plain, "a text") }

func textFor(at *string, in use, name string) value {
	return scalar[string]{at: at, use: in, in: form{name: name, json: "string"}, parse: func(s string) (string, error) {
		if s == "" {
			return "", errors.New("must not be empty")
		}
		return s, checkText(s)
	}}
}

// checkText returns an error for a text that no argument, path or variable can hold.
func checkText(s string) error {
	if strings.ContainsRune(s, 0) {
		return errors.New("must not contain a NUL character")
	}
	return nil
}

// filePath is the name of a file or folder. A relative one starts at the folder of the file that has it.
func filePath(at *string) value { return pathValue{at} }

type pathValue struct{ at *string }

func (p pathValue) form() form { return form{name: "a path", json: "string"} }

func (p pathValue) read(r *reader, n *node) {
	text(p.at).read(r, n)
	*p.at = n.at.src.absolute(*p.at)
}

func yesNo(at *bool) value {
	const name = "true or false"
	return scalar[bool]{at: at, in: form{name: name, json: "boolean"}, parse: func(s string) (bool, error) {
		if s == "true" || s == "false" {
			return s == "true", nil
		}
		switch strings.ToLower(s) {
		case "true", "yes", "on", "y", "1":
			return false, errors.New("must be true or false: write true")
		case "false", "no", "off", "n", "0":
			return false, errors.New("must be true or false: write false")
		}
		return false, errors.New("must be true or false")
	}}
}

// number is a whole number between two bounds.
func number(at *int, least, most int) value {
	name := fmt.Sprintf("a whole number from %d to %d", least, most)
	if most == math.MaxInt {
		name = fmt.Sprintf("a whole number of at least %d", least)
	}
	in := form{name: name, json: "integer", least: new(float64(least))}
	if most < math.MaxInt {
		in.most = new(float64(most))
	}
	return scalar[int]{at: at, in: in, parse: func(s string) (int, error) {
		n, err := strconv.Atoi(s)
		if err != nil || n < least || n > most || s[0] == '+' {
			wrong := errors.New("must be " + name)
			if meant, ok := wholeNumber(s); ok && meant >= least && meant <= most {
				return 0, valueError{fmt.Errorf("%w: write %d", wrong, meant)}
			}
			return 0, wrong
		}
		return n, nil
	}}
}

// wholeNumber returns the number that a text in another spelling means, such as "3 ", "+3", 1_000, 1e3 or 4k.
func wholeNumber(s string) (int, bool) {
	digits, thousands := strings.CutSuffix(strings.ToLower(strings.TrimSpace(s)), "k")
	v, err := strconv.ParseFloat(strings.ReplaceAll(digits, "_", ""), 64)
	if thousands {
		v *= 1_000
	}
	if err != nil || v != math.Trunc(v) || math.Abs(v) > math.MaxInt32 || strings.ContainsAny(digits, "xp") {
		return 0, false
	}
	return int(v), true
}

// fraction is a decimal number of at least a bound.
func fraction(at *float64, least float64) value {
	name := fmt.Sprintf("a number of at least %g", least)
	in := form{name: name, json: "number", least: new(least)}
	return scalar[float64]{at: at, in: in, parse: func(s string) (float64, error) {
		v, err := strconv.ParseFloat(s, 64)
		const most = 1_000_000
		switch {
		case err == nil && v > most && !math.IsInf(v, 1):
			return 0, fmt.Errorf("must be at most %d", most)
		case err != nil || !(v >= least && v <= most) || strings.ContainsAny(s, "xX_pP"): // nor NaN
			wrong := errors.New("must be " + name)
			percent, found := strings.CutSuffix(s, "%")
			if n, err := strconv.Atoi(percent); found && err == nil && n > 0 && float64(n)/100 >= least {
				return 0, valueError{fmt.Errorf("%w: write %g", wrong, float64(n)/100)}
			}
			return 0, wrong
		}
		return v, nil
	}}
}

// oneOf is one of some words.
func oneOf[S ~string](at *S, allowed ...S) value {
	list := make([]string, len(allowed))
	for i, word := range allowed {
		list[i] = string(word)
	}
	name := "one of " + strings.Join(list, ", ")
	return scalar[S]{at: at, in: form{name: name, json: "string", allowed: list}, parse: func(s string) (S, error) {
		if slices.Contains(list, s) {
			return S(s), nil
		}
		if other := otherWords[s]; slices.Contains(list, other) {
			s = other
		}
		return "", errors.New("must be " + name + nearest.DidYouMean(s, list))
	}}
}

// optional is a value that is nil if the file does not have it.
func optional[T any](at **T, of func(*T) value) value { return optionalValue[T]{at, of} }

type optionalValue[T any] struct {
	at **T
	of func(*T) value
}

func (o optionalValue[T]) form() form { return o.of(new(T)).form() }

func (o optionalValue[T]) read(r *reader, n *node) {
	*o.at = new(T)
	o.of(*o.at).read(r, n)
}

// listOf is a list of values. Each is read into an element by of.
func listOf[T any](at *[]T, of func(*T) value) value { return listValue[T]{at, of} }

type listValue[T any] struct {
	at *[]T
	of func(*T) value
}

func (l listValue[T]) form() form {
	items := l.of(new(T)).form()
	return form{name: "a list, each " + items.name, json: "array", items: &items}
}

func (l listValue[T]) read(r *reader, n *node) {
	if n.blank() {
		return
	}
	if n.kind != listNode {
		r.fault(n, "must be a list such as [%s]", r.example(n))
		return
	}
	*l.at = make([]T, len(n.items))
	for i, item := range n.items {
		l.of(&(*l.at)[i]).read(r, item)
	}
}

// command is the list of a program and its arguments. A relative path of the program starts at the folder of the file.
func command(at *[]string) value { return commandValue{at} }

type commandValue struct{ at *[]string }

func (c commandValue) form() form {
	return form{
		name: "a list: a program and its arguments", json: "array", items: &form{name: "an argument", json: "string"},
	}
}

func (c commandValue) read(r *reader, n *node) {
	switch {
	case n.kind == textNode:
		r.fault(n, "must be a list of a program and its arguments: [sh, -c, %s] runs it in a shell", r.quote(n))
		return
	case n.kind != listNode || len(n.items) == 0:
		r.fault(n, "must be a list of a program and its arguments such as [./bin/search, --log-level, info]")
		return
	}
	words, known := make([]string, len(n.items)), true
	for i, item := range n.items {
		word, ok := r.text(item, argument, "an argument")
		words[i], known = word, known && ok
	}
	if known && words[0] == "" {
		r.fault(n.items[0], "the program must not be empty")
	}
	if strings.Contains(words[0], "/") {
		words[0] = n.at.src.absolute(words[0])
	}
	*c.at = words
}

// textMap is a map from free names to texts.
func textMap(at *map[string]string, in use, checkName func(string) error) value {
	return textMapValue{at, in, checkName}
}

type textMapValue struct {
	at        *map[string]string
	use       use
	checkName func(string) error
}

func (m textMapValue) form() form {
	return form{name: "a map of names and texts", json: "object", items: &form{name: "a text", json: "string"}}
}

func (m textMapValue) read(r *reader, n *node) {
	if n.kind == listNode || n.kind == textNode {
		r.fault(n, "must be a map such as {NAME: VALUE}")
		return
	}
	entries, ok := r.entries(n)
	if !ok {
		return
	}
	values := make(map[string]string, len(entries))
	for _, e := range entries {
		if err := m.checkName(e.name); err != nil {
			r.faultAt(e.at, "%.100q: %s", e.name, err)
			continue
		}
		r.within(e.name, func() {
			if e.value.kind == nullNode {
				r.fault(e.value, `has no value: write "" for an empty text`)
				return
			}
			if text, ok := r.text(e.value, m.use, "a text"); ok {
				values[e.name] = text
			}
		})
	}
	*m.at = values
}

// fields is a value with keys of its own.
func fields(at object) value { return fieldsValue{at, at.keys()} }

type fieldsValue struct {
	at   object
	keys []key
}

func (f fieldsValue) form() form { return form{name: "a map", json: "object", keys: f.keys} }

func (f fieldsValue) read(r *reader, n *node) { r.object(n, f.keys) }
