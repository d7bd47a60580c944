package node

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/auth"
	"drystone.example/drystone/backend/client"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/pki"
	"drystone.example/drystone/backend/virt"
)

// DefaultDir is where a node keeps everything, unless told otherwise.
const DefaultDir Dir = "/var/lib/drystone"

// Local is what a node is told about itself when it is set up.
type Local struct {
	Dir         Dir
	Name        string
	Address     string // IP that the other nodes reach it at
	Accelerator virt.Accelerator
	LibvirtURI  string // empty: it runs no guests
	LibvirtPIDs string
}

func (l Local) config() Config {
	return Config{
		Name: l.Name, Address: l.Address, Accelerator: l.Accelerator,
		LibvirtURI: l.LibvirtURI, LibvirtPIDs: l.LibvirtPIDs,
	}
}

// prepare makes the node's folder, and refuses one that is in use.
func (l Local) prepare() error {
	if err := l.Dir.check(); err != nil {
		return err
	}
	if _, err := os.Stat(l.Dir.Config()); err == nil {
		return model.Errorf(model.Conflict, "%s belongs to a node already", l.Dir)
	}
	for dir, mode := range map[string]os.FileMode{
		string(l.Dir): 0o711, l.Dir.PKI(): 0o700, l.Dir.Raft(): 0o700, l.Dir.Run(): 0o711,
		l.Dir.Disks(): 0o700, l.Dir.Files(): 0o755,
	} {
		if err := os.MkdirAll(dir, mode); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
		// QEMU's user passes through to the sockets, whatever the umask.
		if err := os.Chmod(dir, mode); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
	}
	return nil
}

// A Birth says how a cluster begins.
type Birth struct {
	Local
	ClusterName string
	User        string
	Password    model.Secret
}

// Born is what whoever began a cluster needs to know of it.
type Born struct {
	Cluster     model.ClusterID
	Node        model.NodeID
	Fingerprint string // of the cluster's CA
	CA          string // path of its certificate
}

// Init sets the first node of a new cluster up. The daemon completes it when it
// first starts.
func Init(ctx context.Context, b Birth) (Born, error) {
	if err := errors.Join(model.ValidateName("cluster", b.ClusterName), model.ValidateName("user", b.User),
		model.ValidateName("node", b.Name), validAddress(b.Address), auth.CheckPassword(b.User, b.Password)); err != nil {
		return Born{}, err
	}
	if err := b.prepare(); err != nil {
		return Born{}, err
	}
	cfg := b.config()
	cfg.Cluster, cfg.ClusterName = model.NewID[model.ClusterID](), b.ClusterName
	cfg.Node = model.NewID[model.NodeID]()
	ca, err := pki.NewCA(cfg.Cluster)
	if err != nil {
		return Born{}, fmt.Errorf("make authority: %w", err)
	}
	serial, err := b.certify(ca, cfg)
	if err != nil {
		return Born{}, err
	}
	create, err := b.record(ctx, ca, cfg, serial)
	if err != nil {
		return Born{}, err
	}
	// The configuration comes last: with it the node is set up, without it not.
	if err := errors.Join(writeJSON(b.Dir.Birth(), create), writeConfig(b.Dir, cfg)); err != nil {
		return Born{}, err
	}
	keeper, err := pki.OpenKeeper(b.Dir.PKI())
	if err != nil {
		return Born{}, fmt.Errorf("read certificates back: %w", err)
	}
	return Born{cfg.Cluster, cfg.Node, ca.Pin().String(), keeper.RootsFile()}, nil
}

// certify makes the first node's own certificates and returns their serial.
func (b Birth) certify(ca *pki.CA, cfg Config) (string, error) {
	key, err := pki.NewKey()
	if err != nil {
		return "", fmt.Errorf("make key: %w", err)
	}
	request, err := key.Request()
	if err != nil {
		return "", fmt.Errorf("make certificate request: %w", err)
	}
	certs, err := ca.Issue(request, cfg.Node, []string{cfg.Address, cfg.Name})
	if err != nil {
		return "", fmt.Errorf("issue certificates: %w", err)
	}
	if err := pki.Save(b.Dir.PKI(), key, certs); err != nil {
		return "", fmt.Errorf("keep certificates: %w", err)
	}
	return certs.Serial()
}

// record makes the first command of the cluster's log. The CA's key is in it,
// sealed under a key that stays in this node's folder.
func (b Birth) record(ctx context.Context, ca *pki.CA, cfg Config, serial string) (command.ClusterCreate, error) {
	secret, err := ca.Key()
	if err != nil {
		return command.ClusterCreate{}, fmt.Errorf("seal authority: %w", err)
	}
	seal := pki.NewSealKey()
	if err := pki.SaveSealKey(b.Dir.SealKey(), seal); err != nil {
		return command.ClusterCreate{}, fmt.Errorf("keep seal key: %w", err)
	}
	gossip := make([]byte, 32)
	rand.Read(gossip) // never fails (crypto/rand)
	if err := saveKeyring(b.Dir, [][]byte{gossip}); err != nil {
		return command.ClusterCreate{}, err
	}
	hash, err := auth.NewHasher(auth.Strong).Hash(ctx, b.Password)
	if err != nil {
		return command.ClusterCreate{}, fmt.Errorf("hash password: %w", err)
	}
	keep := func(raw []byte) command.Secret {
		return command.Keep(model.NewSecret(base64.StdEncoding.EncodeToString(raw)))
	}
	return command.ClusterCreate{
		ID: cfg.Cluster, Name: cfg.ClusterName, CA: ca.PEM(),
		CAKey: keep(pki.Seal(seal, secret)), GossipKey: keep(gossip),
		Node: model.Node{
			ID: cfg.Node, Name: cfg.Name, Address: cfg.Address, API: cfg.URL(), Serial: serial,
			Voter: true, Version: model.Version,
		},
		Owner: command.UserCreate{
			ID: model.NewID[model.UserID](), Name: b.User, Role: model.Owner, PasswordHash: command.Keep(hash),
		},
	}, nil
}

// joinTime is how long a join may take.
const joinTime = time.Minute

// Join makes a machine a node of the cluster that gave out the token. server is
// an address of one of its nodes, with or without a port. The machine's key never
// leaves it, and nothing secret is sent before the server has proven to belong to
// the token's cluster.
func Join(ctx context.Context, l Local, server string, secret model.Secret) (Config, error) {
	token, err := pki.ParseToken(secret.Reveal())
	if err != nil {
		return Config{}, err
	}
	if err := errors.Join(model.ValidateName("node", l.Name), validAddress(l.Address)); err != nil {
		return Config{}, err
	}
	if err := l.prepare(); err != nil {
		return Config{}, err
	}
	key, err := pki.NewKey()
	if err != nil {
		return Config{}, fmt.Errorf("make key: %w", err)
	}
	request, err := key.Request()
	if err != nil {
		return Config{}, fmt.Errorf("make certificate request: %w", err)
	}
	answer, err := redeem(ctx, server, token, schema.JoinRequest{
		TokenID: token.ID, Secret: token.Secret.Reveal(), Name: l.Name, Address: l.Address, Version: model.Version,
		CSR: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request}),
	})
	if err != nil {
		return Config{}, err
	}
	return l.settle(key, answer)
}

// settle writes down what a new member was told.
func (l Local) settle(key pki.Key, answer schema.JoinAnswer) (Config, error) {
	cfg := l.config()
	cfg.Cluster, cfg.ClusterName, cfg.Node = answer.ClusterID, answer.ClusterName, answer.NodeID
	for _, p := range answer.Peers {
		cfg.Peers = append(cfg.Peers, Peer{p.ID, p.Address})
	}
	certs := pki.Certificates{Node: answer.NodeCert, Web: answer.WebCert, Roots: answer.Roots}
	if err := errors.Join(pki.Save(l.Dir.PKI(), key, certs), saveKeyring(l.Dir, answer.GossipKeys)); err != nil {
		return Config{}, fmt.Errorf("keep what the cluster answered: %w", err)
	}
	return cfg, writeConfig(l.Dir, cfg)
}

// redeem sends the join request to a server that proves to be of the token's
// cluster.
func redeem(ctx context.Context, server string, token pki.Token, req schema.JoinRequest) (schema.JoinAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	c := client.WithTLS(withPort(server), pki.JoinerTLS(token.Fingerprint), model.Secret{})
	defer c.Close()
	answer, err := c.Join(ctx, req)
	if foreign(err) {
		return answer, model.Errorf(model.Denied, "%s does not belong to the cluster that gave out this token", server)
	}
	return answer, err
}

// foreign reports whether a server was refused by its certificate.
func foreign(err error) bool {
	for ; err != nil; err = errors.Unwrap(err) {
		if e, ok := err.(*model.Error); ok && e.Code == model.Denied { //nolint:errorlint // each link is looked at
			return true
		}
	}
	return false
}
