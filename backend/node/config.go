// Package node puts one node together from its parts, starts them in order and
// stops them in the reverse. It is the only package that knows them all.
package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/virt"
)

// The ports, the same on every node.
const (
	WirePort   = 7420 // node to node: raft, blocks, calls
	GossipPort = 7421
	APIPort    = 8443 // people
)

// Config is what a node knows of itself before it has spoken to anybody. Init
// and Join write it; everything else is in the record.
type Config struct {
	Cluster     model.ClusterID `json:"cluster"`
	ClusterName string          `json:"cluster_name"`
	Node        model.NodeID    `json:"node"`
	Name        string          `json:"name"`
	Address     string          `json:"address"`           // IP that the other nodes reach it at
	Peers       []Peer          `json:"peers"`             // nodes it may turn to first
	Disks       []string        `json:"disks"`             // paths of files
	Devices     []model.DiskID  `json:"devices,omitempty"` // disks on block devices, wherever they are

	// MapMemory bounds what of each disk's page map is kept in memory; absent: 32 MiB. The
	// more of it, the fewer reads of cold data look the map up on the disk first.
	MapMemory model.Bytes `json:"map_memory_bytes,omitempty"`

	// ExportDirs are the folders of this machine that machines may be exported to, such as
	// where an NFS share is mounted; nothing else outside the node's own is written to.
	ExportDirs []string `json:"export_dirs,omitempty"`

	// LibvirtURI is empty on a node that runs no guests.
	LibvirtURI  string           `json:"libvirt_uri,omitempty"`
	LibvirtPIDs string           `json:"libvirt_pids,omitempty"`
	Accelerator virt.Accelerator `json:"accelerator"`
}

// A Peer is another node as it was when this one joined.
type Peer struct {
	ID      model.NodeID `json:"id"`
	Address string       `json:"address"`
}

// Validate reports every mistake at once, not only the first.
func (c Config) Validate() error {
	var errs []error
	if c.Cluster == 0 || c.Node == 0 {
		errs = append(errs, errors.New("the node belongs to no cluster"))
	}
	if err := model.ValidateName("node", c.Name); err != nil {
		errs = append(errs, err)
	}
	if err := validAddress(c.Address); err != nil {
		errs = append(errs, err)
	}
	if c.MapMemory != 0 && c.MapMemory < disk.MinMapMemory {
		errs = append(errs, fmt.Errorf("map_memory_bytes is %d; the least is %d", c.MapMemory, disk.MinMapMemory))
	}
	for _, d := range c.ExportDirs {
		if !filepath.IsAbs(d) {
			errs = append(errs, fmt.Errorf("export_dirs has %q, which is not absolute", d))
		}
	}
	if _, err := virt.ParseAccelerator(string(c.Accelerator)); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func validAddress(address string) error {
	if a, err := netip.ParseAddr(address); err != nil || a.IsUnspecified() || a.Zone() != "" {
		return model.Errorf(model.Invalid, "%q is not an IP address that other nodes could reach", address)
	}
	return nil
}

// Endpoint is the host:port of the node's web page and API.
func (c Config) Endpoint() string { return hostPort(c.Address, APIPort) }

// URL is where the node's web page is.
func (c Config) URL() string { return "https://" + c.Endpoint() }

func hostPort(address string, port uint16) string {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return fmt.Sprintf("%s:%d", address, port)
	}
	return netip.AddrPortFrom(a, port).String()
}

// A Dir is a node's folder; everything the daemon keeps lies in it.
type Dir string

func (d Dir) path(elem ...string) string {
	return filepath.Join(append([]string{string(d)}, elem...)...)
}

// Config and the others are the parts of a node's folder.
func (d Dir) Config() string  { return d.path("node.json") }
func (d Dir) PKI() string     { return d.path("pki") }
func (d Dir) Raft() string    { return d.path("raft") }
func (d Dir) Run() string     { return d.path("run") }
func (d Dir) Files() string   { return d.path("files") }
func (d Dir) Disks() string   { return d.path("disks") }
func (d Dir) Scratch() string { return d.path("scratch") }
func (d Dir) VMs() string     { return d.path("vms") }
func (d Dir) History() string { return d.path("history") }
func (d Dir) Socket() string  { return d.path("run", "api.sock") }
func (d Dir) Guard() string   { return d.path("run", "guard.sock") }
func (d Dir) SealKey() string { return d.path("pki", "seal.key") }
func (d Dir) Keyring() string { return d.path("pki", "gossip.key") }
func (d Dir) Birth() string   { return d.path("birth.json") }

// maxSocket is the most bytes a UNIX socket's path has, less the longest name
// we put into a node's run folder.
const maxSocket = 107 - len("nbd-0000000000000.sock") - 1

// check says early that sockets would not fit, instead of when one is needed.
func (d Dir) check() error {
	if n := len(d.Run()); n > maxSocket {
		return model.Errorf(model.Invalid,
			"the folder %s is too deep for UNIX sockets: its path has %d bytes and may have %d", d, n, maxSocket)
	}
	return nil
}

// ReadConfig reads a node's configuration; model.NotFound says the node was
// never set up.
func ReadConfig(d Dir) (Config, error) {
	text, err := os.ReadFile(d.Config())
	if errors.Is(err, os.ErrNotExist) {
		return Config{}, model.Errorf(model.NotFound,
			"this node belongs to no cluster yet; run drystone init or drystone join")
	}
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	var c Config
	if err := json.Unmarshal(text, &c); err != nil {
		return Config{}, fmt.Errorf("read configuration %s: %w", d.Config(), err)
	}
	return c, c.Validate()
}

// writeConfig replaces the configuration in one step.
func writeConfig(d Dir, c Config) error {
	if err := c.Validate(); err != nil {
		return err
	}
	return writeJSON(d.Config(), c)
}

// writeJSON replaces a file that only its owner may read, in one durable step.
func writeJSON(path string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(append(text, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(f.Name()))
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	f, err := os.Open(dir) //nolint:gosec // the node's own folder
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	return nil
}

// withPort adds the port of the API to an address that has none.
func withPort(server string) string {
	if _, _, err := net.SplitHostPort(server); err == nil {
		return server
	}
	return net.JoinHostPort(server, strconv.Itoa(APIPort))
}
