package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// maxDepth is how deep JSON may nest; the deepest request we know has four levels.
const maxDepth = 16

// strictJSON is the one format of requests and answers. A request holds exactly
// one value, no object has a member twice, none is nested too deep; unknown
// members are refused by the schema of each request.
func strictJSON() huma.Format {
	return huma.Format{
		Marshal: func(w io.Writer, v any) error {
			e := json.NewEncoder(w)
			e.SetEscapeHTML(false)
			return e.Encode(v) //nolint:wrapcheck // the framework reports it
		},
		Unmarshal: func(data []byte, v any) error {
			if err := checkJSON(data); err != nil {
				return err
			}
			return json.Unmarshal(data, v) //nolint:wrapcheck // the framework reports it
		},
	}
}

// checkJSON walks the tokens of a request.
func checkJSON(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	if err := checkValue(d, 0); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is something after the JSON value")
	}
	return nil
}

func checkValue(d *json.Decoder, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("the JSON is nested more than %d deep", maxDepth)
	}
	t, err := d.Token()
	if err != nil {
		return errors.New("the body is not one whole JSON value")
	}
	open, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	seen := map[string]bool{}
	for d.More() {
		if open == '{' {
			t, err := d.Token()
			name, ok := t.(string)
			if err != nil || !ok {
				return errors.New("the body is not one whole JSON value")
			}
			if seen[name] {
				return fmt.Errorf("%.40q is there twice", name)
			}
			// The decoder would take Name for name, and so take it twice.
			if name != strings.ToLower(name) {
				return fmt.Errorf("%.40q is not in lower case", name)
			}
			seen[name] = true
		}
		if err := checkValue(d, depth+1); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return errors.New("the body is not one whole JSON value")
	}
	return nil
}
