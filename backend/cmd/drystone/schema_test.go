package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
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
	"disk scrub":    "Task",
	"volume create": "Volume",
	"volume clone":  "Volume",
	"volume list":   "ListVolume",
	"volume show":   "Volume",
	"volume resize": "Volume",
	"volume scrub":  "Task",
	"image upload":  "Volume",
	"image uploads": "ListUpload",

	"snapshot create": "Snapshot",
	"snapshot list":   "ListSnapshot",
	"snapshot show":   "Snapshot",
	"snapshot diff":   "SnapshotDiff",
	"snapshot revert": "Volume",

	"image list":  "ListVolume",
	"vm create":   "VM",
	"vm export":   "VMExportEvent",
	"vm import":   "ImportEvent",
	"vm snapshot": "ListSnapshot",
	"vm list":     "ListVM",
	"vm show":     "VM",
	"vm start":    "VM",
	"vm stop":     "VM",
	"vm shutdown": "VM",
	"vm reset":    "VM",
	"vm edit":     "VM",
	"vm migrate":  "VM",

	"network create":     "Network",
	"network edit":       "Network",
	"network list":       "ListNetwork",
	"network show":       "Network",
	"ca show":            "CA",
	"ca rotate":          "CA",
	"cluster rotate-key": "GossipKey",
}

// document is the part of JSON Schema that docs/cli.schema.json uses.
type document struct {
	Schema     string           `json:"$schema"`
	Title      string           `json:"title"`
	Properties map[string]*rule `json:"properties"` // by command
	Defs       map[string]*rule `json:"$defs"`
}

// A rule is what a value has to be. A keyword that is not here is refused, so that
// none is passed over.
type rule struct {
	Ref        string           `json:"$ref,omitempty"`
	Type       string           `json:"type,omitempty"`
	Enum       []any            `json:"enum,omitempty"`
	Required   []string         `json:"required,omitempty"`
	Items      *rule            `json:"items,omitempty"`
	Properties map[string]*rule `json:"properties,omitempty"`
	Additional *bool            `json:"additionalProperties,omitempty"`
	Minimum    *float64         `json:"minimum,omitempty"`
	Format     string           `json:"format,omitempty"`
	About      string           `json:"description,omitempty"`
}

const localRef = "#/$defs/"

func readDocument(t *testing.T) (d document) {
	t.Helper()
	text, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	strictly(t, text, &d)
	return d
}

func strictly(t *testing.T, text []byte, into any) {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		t.Fatal(err)
	}
}

// The committed schema is what the API's description says of the objects that the
// commands print.
func TestSchemaIsCurrent(t *testing.T) {
	text, err := os.ReadFile(openapiFile)
	if err != nil {
		t.Fatal(err)
	}
	var description struct {
		Components struct {
			Schemas map[string]json.RawMessage `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(text, &description); err != nil {
		t.Fatal(err)
	}
	want := document{
		Schema:     "https://json-schema.org/draft/2020-12/schema",
		Title:      "What drystone COMMAND --json prints, by command",
		Properties: map[string]*rule{},
		Defs:       map[string]*rule{},
	}
	var need func(name string)
	need = func(name string) {
		if want.Defs[name] != nil {
			return
		}
		def, ok := description.Components.Schemas[name]
		if !ok {
			t.Fatalf("the API has no object %s", name)
		}
		local := strings.ReplaceAll(string(def), "#/components/schemas/", localRef)
		want.Defs[name] = &rule{}
		strictly(t, []byte(local), want.Defs[name])
		for _, part := range strings.Split(local, localRef)[1:] {
			need(part[:strings.IndexByte(part, '"')])
		}
	}
	for command, name := range printed {
		want.Properties[command] = &rule{Ref: localRef + name}
		need(name)
	}
	text, err = json.MarshalIndent(want, "", "  ")
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
	schema := readDocument(t)
	archive := filepath.Join(t.TempDir(), "web.tar")
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
		{"disk", "scrub", "000000000000b"},
		{"volume", "create", "data", "1G"},
		{"volume", "list"},
		{"volume", "show", "data"},
		{"volume", "resize", "data", "2G"},
		{"volume", "scrub", "data"},
		{"snapshot", "create", "data", "monday"},
		{"snapshot", "list", "data"},
		{"snapshot", "show", "data@monday"},
		{"snapshot", "diff", "data@monday"},
		{"snapshot", "revert", "data@monday"},
		{"volume", "clone", "data@monday", "twin"},
		{"image", "upload", image},
		{"image", "uploads"},
		{"image", "list"},
		{"network", "create", "lan", "--bridge", "br0", "--node", "n2=br7", "--vlan", "20"},
		{"network", "edit", "lan", "--vlan", "21"},
		{"network", "list"},
		{"network", "show", "lan"},
		{"vm", "create", "web", "--disk", "1G", "--nic", "net=lan"},
		{"vm", "edit", "web", "--add-nic", "net=lan,model=e1000"},
		{"vm", "list"},
		{"vm", "snapshot", "web", "tuesday"},
		{"vm", "start", "web"},
		{"vm", "migrate", "web", "n2"},
		{"vm", "show", "web"},
		{"vm", "reset", "web"},
		{"vm", "shutdown", "web"},
		{"vm", "stop", "web"},
		{"vm", "export", "web", "--to", archive},
		{"vm", "import", archive, "--name", "again"},
		{"cluster", "rotate-key"},
		{"ca", "rotate"},
		{"ca", "rotate", "--finish"},
		{"ca", "show"},
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
		for _, wrong := range schema.fit(schema.Properties[command], value, command) {
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
	schema := readDocument(t)
	for name, fields := range map[string]string{
		"Volume": "id name size_bytes used_bytes holder generation epoch columns",
		"Column": "members",
		"Member": "disk node state",
		"Disk":   "node state size_bytes used_bytes checksum_errors repaired",
		"Pool":   "size_bytes used_bytes reserve_bytes",
	} {
		for field := range strings.FieldsSeq(fields) {
			if schema.Defs[name].Properties[field] == nil {
				t.Errorf("%s has no %s", name, field)
			}
		}
	}
	states := schema.Defs["Member"].Properties["state"].Enum
	if want := []any{"active", "joining", "stale"}; !cmp.Equal(states, want) {
		t.Errorf("a member's states are %v, want %v", states, want)
	}
}

// fit says where a value breaks a rule.
func (d document) fit(r *rule, v any, at string) (wrong []string) {
	bad := func(format string, args ...any) { wrong = append(wrong, at+": "+fmt.Sprintf(format, args...)) }
	if r.Ref != "" {
		return d.fit(d.Defs[strings.TrimPrefix(r.Ref, localRef)], v, at)
	}
	if len(r.Enum) > 0 && !slices.Contains(r.Enum, v) {
		bad("%v is none of %v", v, r.Enum)
	}
	switch v := v.(type) {
	case map[string]any:
		for _, name := range r.Required {
			if v[name] == nil {
				bad("%s is missing", name)
			}
		}
		for name, value := range v {
			if p := r.Properties[name]; p != nil {
				wrong = append(wrong, d.fit(p, value, at+"."+name)...)
			} else {
				bad("%s is not in the schema", name)
			}
		}
	case []any:
		for i, item := range v {
			wrong = append(wrong, d.fit(r.Items, item, fmt.Sprintf("%s[%d]", at, i))...)
		}
	case string:
		if _, err := time.Parse(time.RFC3339, v); r.Format == "date-time" && err != nil {
			bad("%s is no time", v)
		}
	case float64:
		if r.Minimum != nil && v < *r.Minimum || r.Type == "integer" && v != math.Trunc(v) {
			bad("%v is out of bounds", v)
		}
	}
	if got := typeOf(v); got != r.Type && (got != "number" || r.Type != "integer") {
		bad("%v is no %s", v, r.Type)
	}
	return wrong
}

func typeOf(v any) string {
	switch v.(type) {
	case map[string]any:
		return "object"
	case []any:
		return "array"
	case string:
		return "string"
	case bool:
		return "boolean"
	case float64:
		return "number"
	}
	return "null"
}
