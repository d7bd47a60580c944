package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write docs/cli.schema.json anew")

const (
	schemaFile  = "../../../docs/cli.schema.json"
	openapiFile = "../../../docs/openapi.json"
)

// printed names what each command prints with --json, by its name in the API.
var printed = map[string]string{
	"status":        "Cluster",
	"node list":     "ListNode",
	"node show":     "Node",
	"token create":  "NewToken",
	"token list":    "ListToken",
	"pool show":     "Pool",
	"disk list":     "ListDisk",
	"disk add":      "Disk",
	"volume create": "Volume",
	"volume list":   "ListVolume",
	"volume show":   "Volume",
	"volume resize": "Volume",
	"image import":  "Volume",
	"image list":    "ListVolume",
	"vm create":     "VM",
	"vm list":       "ListVM",
	"vm show":       "VM",
	"vm start":      "VM",
	"vm stop":       "VM",
	"vm shutdown":   "VM",
	"vm reset":      "VM",
}

// object is JSON as the standard library decodes it.
type object = map[string]any

func readObject(t *testing.T, path string) (o object) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &o); err != nil {
		t.Fatal(err)
	}
	return o
}

// The committed schema is what the API's description says of the objects that the
// commands print.
func TestSchemaIsCurrent(t *testing.T) {
	all := readObject(t, openapiFile)["components"].(object)["schemas"].(object)
	defs, commands := object{}, object{}
	var need func(name string)
	need = func(name string) {
		if _, have := defs[name]; have {
			return
		}
		def, ok := all[name]
		if !ok {
			t.Fatalf("the API has no object %s", name)
		}
		text, err := json.Marshal(def)
		if err != nil {
			t.Fatal(err)
		}
		local := strings.ReplaceAll(string(text), "#/components/schemas/", "#/$defs/")
		var o any
		if err := json.Unmarshal([]byte(local), &o); err != nil {
			t.Fatal(err)
		}
		defs[name] = o
		for _, part := range strings.Split(local, "#/$defs/")[1:] {
			need(part[:strings.IndexByte(part, '"')])
		}
	}
	for command, name := range printed {
		commands[command] = object{"$ref": "#/$defs/" + name}
		need(name)
	}
	want := object{
		"$schema":    "https://json-schema.org/draft/2020-12/schema",
		"title":      "What drystone COMMAND --json prints, by command",
		"properties": commands,
		"$defs":      defs,
	}
	text, err := json.MarshalIndent(want, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(schemaFile, append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	committed, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(committed), string(text)+"\n"); diff != "" {
		t.Errorf("docs/cli.schema.json is not current (go test ./backend/cmd/drystone -update): %s", diff)
	}
}

// What the commands really print fits the committed schema.
func TestOutputsFitSchema(t *testing.T) {
	c := newCLI(t)
	schema := readObject(t, schemaFile)
	image := filepath.Join(t.TempDir(), "debian.raw")
	if err := os.WriteFile(image, []byte("image of a disk"), 0o600); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, args := range [][]string{
		{"volume", "list"},
		{"vm", "list"},
		{"status"},
		{"node", "list"},
		{"node", "show", "n1"},
		{"token", "create"},
		{"token", "list"},
		{"pool", "show"},
		{"disk", "list"},
		{"disk", "add", "/d/3", "--size", "1G"},
		{"volume", "create", "data", "1G"},
		{"volume", "list"},
		{"volume", "show", "data"},
		{"volume", "resize", "data", "2G"},
		{"image", "import", image},
		{"image", "list"},
		{"vm", "create", "web", "--disk", "1G"},
		{"vm", "list"},
		{"vm", "start", "web"},
		{"vm", "show", "web"},
		{"vm", "reset", "web"},
		{"vm", "shutdown", "web"},
		{"vm", "stop", "web"},
	} {
		command := args[0]
		if _, known := printed[command]; !known {
			command += " " + args[1]
		}
		seen[command] = true
		var value any
		if err := json.Unmarshal([]byte(c.ok(t, append(args, "--json")...)), &value); err != nil {
			t.Errorf("%v printed no JSON: %v", args, err)
			continue
		}
		for _, wrong := range fit(schema, schema["properties"].(object)[command].(object), value, command) {
			t.Error(wrong)
		}
	}
	for command := range printed {
		if !seen[command] {
			t.Errorf("the output of %s was not checked", command)
		}
	}
}

// The names that other tools rely on, as the contract lists them.
func TestContractFields(t *testing.T) {
	defs := readObject(t, schemaFile)["$defs"].(object)
	for name, fields := range map[string]string{
		"Volume": "id name size_bytes used_bytes holder generation epoch columns",
		"Column": "members",
		"Member": "disk node state",
		"Disk":   "node state size_bytes used_bytes checksum_errors repaired",
		"Pool":   "size_bytes used_bytes reserve_bytes",
	} {
		properties := defs[name].(object)["properties"].(object)
		for field := range strings.FieldsSeq(fields) {
			if _, ok := properties[field]; !ok {
				t.Errorf("%s has no %s", name, field)
			}
		}
	}
	states := defs["Member"].(object)["properties"].(object)["state"].(object)["enum"]
	if want := []any{"active", "joining", "stale"}; !reflect.DeepEqual(states, want) {
		t.Errorf("a member's states are %v, want %v", states, want)
	}
}

// fit checks a value against the part of JSON Schema that our description uses. It
// refuses a keyword it does not know, so that nothing is passed over.
func fit(root, s object, v any, at string) (wrong []string) {
	bad := func(format string, args ...any) {
		wrong = append(wrong, at+": "+fmt.Sprintf(format, args...))
	}
	if ref, ok := s["$ref"].(string); ok {
		return fit(root, root["$defs"].(object)[strings.TrimPrefix(ref, "#/$defs/")].(object), v, at)
	}
	for keyword, rule := range s {
		switch keyword {
		case "type":
			if !isType(rule, v) {
				bad("%v is no %v", v, rule)
			}
		case "enum":
			if !slices.Contains(rule.([]any), v) {
				bad("%v is none of %v", v, rule)
			}
		case "required":
			for _, name := range rule.([]any) {
				if o, ok := v.(object); ok && o[name.(string)] == nil {
					bad("%v is missing", name)
				}
			}
		case "items":
			items, _ := v.([]any)
			for i, item := range items {
				wrong = append(wrong, fit(root, rule.(object), item, fmt.Sprintf("%s[%d]", at, i))...)
			}
		case "properties":
			o, _ := v.(object)
			for name, value := range o {
				p, known := rule.(object)[name].(object)
				if !known {
					bad("%s is not in the schema", name)
					continue
				}
				wrong = append(wrong, fit(root, p, value, at+"."+name)...)
			}
		case "minimum":
			if n, ok := v.(float64); ok && n < rule.(float64) {
				bad("%v is less than %v", v, rule)
			}
		case "format":
			if text, ok := v.(string); ok && rule == "date-time" {
				if _, err := time.Parse(time.RFC3339, text); err != nil {
					bad("%v is no time", v)
				}
			}
		case "additionalProperties", "description":
		default:
			bad("the keyword %s is not known to this test", keyword)
		}
	}
	return wrong
}

func isType(rule, v any) bool {
	switch rule {
	case "object":
		_, ok := v.(object)
		return ok
	case "array":
		_, ok := v.([]any)
		return ok
	case "string":
		_, ok := v.(string)
		return ok
	case "boolean":
		_, ok := v.(bool)
		return ok
	case "integer":
		n, ok := v.(float64)
		return ok && n == math.Trunc(n)
	case "number":
		_, ok := v.(float64)
		return ok
	}
	return false
}
