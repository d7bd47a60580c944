package api

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"drystone.example/drystone/backend/auth"
)

// A rateClass says which limit a route's requests count against.
type rateClass string

// The rate classes, complete.
const (
	perAddress rateClass = "address" // what needs no log-in
	perSession rateClass = "session"
	perLogin   rateClass = "login"
	perJoin    rateClass = "join"
)

// The bounds of a request.
const (
	nothing  = int64(1 << 10) // of routes that expect no body
	small    = int64(1 << 20)
	bootFile = int64(256 << 20)
	image    = int64(16 << 40)

	quick = 60 * time.Second
	long  = time.Duration(0) // as long as the client stays
)

// A route is one line of the table. Its fields are positional below, so that one
// without a verb does not compile.
type route struct {
	method  string
	path    string
	verb    auth.Verb
	kind    auth.Kind
	rate    rateClass
	body    int64         // the most bytes of a request
	timeout time.Duration // the most time for it; long has limits of its own
	id      string        // in the specification
	summary string
	mount   mounter
}

// A mounter puts a route's handler behind its guard: by the framework for JSON,
// or as it is.
type mounter func(s *Server, api huma.API, r route, raw func(http.HandlerFunc))

// socket reports whether a route is a websocket, whose client may send its token
// as a subprotocol.
func (r route) socket() bool {
	return r.path == livePath || r.path == serialPath || r.path == screenPath
}

const (
	livePath   = "/live"
	serialPath = "/vms/{ref}/console/serial"
	screenPath = "/vms/{ref}/console/screen"
)

// routes is everything that is served under /api/v1, except its own description.
func routes() []route {
	return slices.Concat(clusterRoutes(), storageRoutes(), machineRoutes(), networkRoutes())
}

func networkRoutes() []route {
	return []route{
		{"GET", "/networks", auth.View, auth.Network, perSession, nothing, quick, "list-networks", "Networks", reply((*Server).listNetworks)},
		{"POST", "/networks", auth.Create, auth.Network, perSession, small, quick, "create-network", "Make a network", reply((*Server).createNetwork)},
		{"GET", "/networks/{ref}", auth.View, auth.Network, perSession, nothing, quick, "get-network", "A network", reply((*Server).getNetwork)},
		{"PATCH", "/networks/{ref}", auth.Change, auth.Network, perSession, small, quick, "change-network", "Change a network", reply((*Server).changeNetwork)},
		{"DELETE", "/networks/{ref}", auth.Delete, auth.Network, perSession, nothing, quick, "delete-network", "Forget a network", reply((*Server).deleteNetwork)},
	}
}

func clusterRoutes() []route {
	return []route{
		{"GET", "/meta", auth.Public, auth.Cluster, perAddress, nothing, quick, "get-meta", "What answers here", reply((*Server).getMeta)},
		{"GET", "/health", auth.Public, auth.Cluster, perAddress, nothing, quick, "get-health", "Whether this node can serve", reply((*Server).getHealth)},
		{"GET", "/openapi.json", auth.Public, auth.Cluster, perAddress, nothing, quick, "get-openapi", "This description", stream((*Server).getOpenAPI, describeOpenAPI)},

		{"POST", "/login", auth.Public, auth.Session, perLogin, small, quick, "login", "Log in", reply((*Server).login)},
		{"POST", "/logout", auth.Self, auth.Session, perSession, nothing, quick, "logout", "Log out", reply((*Server).logout)},
		{"GET", "/session", auth.Self, auth.Session, perSession, nothing, quick, "get-session", "Who is asking", reply((*Server).getSession)},
		{"POST", "/password", auth.Self, auth.Session, perSession, small, quick, "change-password", "Change one's own password", reply((*Server).changePassword)},

		{"POST", "/join", auth.Public, auth.Node, perJoin, small, quick, "join", "Become a member, with a join token", reply((*Server).join)},
		{"GET", "/tokens", auth.View, auth.Token, perSession, nothing, quick, "list-tokens", "Join tokens", reply((*Server).listTokens)},
		{"POST", "/tokens", auth.Create, auth.Token, perSession, small, quick, "create-token", "Make a join token", reply((*Server).createToken)},
		{"DELETE", "/tokens/{id}", auth.Delete, auth.Token, perSession, nothing, quick, "delete-token", "Take a join token back", reply((*Server).deleteToken)},

		{"GET", "/cluster", auth.View, auth.Cluster, perSession, nothing, quick, "get-cluster", "The whole at a glance", reply((*Server).getCluster)},
		{"PATCH", "/cluster", auth.Change, auth.Cluster, perSession, small, quick, "change-cluster", "Change settings of the cluster", reply((*Server).changeCluster)},
		{"GET", "/cluster/ca", auth.View, auth.Cluster, perSession, nothing, quick, "get-ca", "The certificate authority", reply((*Server).getCA)},
		{"POST", "/cluster/ca/rotate", auth.Change, auth.Cluster, perSession, nothing, quick, "rotate-ca", "Replace the certificate authority", reply((*Server).rotateCA)},
		{"POST", "/cluster/ca/finish", auth.Change, auth.Cluster, perSession, nothing, quick, "finish-ca", "Leave nodes behind that are away and have only certificates by the authority before", reply((*Server).finishCA)},
		{"GET", "/cluster/key", auth.View, auth.Cluster, perSession, nothing, quick, "get-key", "How far the change of the gossip key is", reply((*Server).getKey)},
		{"POST", "/cluster/key/rotate", auth.Change, auth.Cluster, perSession, nothing, quick, "rotate-key", "Replace the gossip key", reply((*Server).rotateKey)},
		{"GET", "/nodes", auth.View, auth.Node, perSession, nothing, quick, "list-nodes", "Members", reply((*Server).listNodes)},
		{"GET", "/nodes/{ref}", auth.View, auth.Node, perSession, nothing, quick, "get-node", "A member", reply((*Server).getNode)},
		{"POST", "/nodes/{ref}/drain", auth.Change, auth.Node, perSession, nothing, quick, "drain-node", "Move all machines off a node, and place none there", reply((*Server).drainNode)},
		{"DELETE", "/nodes/{ref}/drain", auth.Change, auth.Node, perSession, nothing, quick, "undrain-node", "Let machines run on a node again, and move those back that a drain took away", reply((*Server).undrainNode)},
		{"DELETE", "/nodes/{ref}", auth.Delete, auth.Node, perSession, nothing, long, "remove-node", "Take a member out for ever", reply((*Server).removeNode)},

		{"GET", "/tasks", auth.View, auth.Task, perSession, nothing, quick, "list-tasks", "Long work", reply((*Server).listTasks)},
		{"DELETE", "/tasks/{id}", auth.Delete, auth.Task, perSession, nothing, quick, "cancel-task", "Cancel long work", reply((*Server).cancelTask)},
		{"GET", "/audit", auth.View, auth.Audit, perSession, nothing, quick, "list-audit", "Who changed what", reply((*Server).listAudit)},

		{"GET", "/metrics/history", auth.View, auth.Metrics, perSession, nothing, quick, "get-history", "The last minutes of a topic", reply((*Server).getHistory)},
		{"GET", livePath, auth.View, auth.Metrics, perSession, nothing, long, "live", "Metrics and events, by websocket", stream((*Server).serveLive, describeSocket)},
	}
}

func storageRoutes() []route {
	return []route{
		{"GET", "/pool", auth.View, auth.Pool, perSession, nothing, quick, "get-pool", "All disks taken together", reply((*Server).getPool)},
		{"GET", "/disks", auth.View, auth.Disk, perSession, nothing, quick, "list-disks", "Disks of the pool", reply((*Server).listDisks)},
		{"POST", "/nodes/{ref}/disks", auth.Create, auth.Disk, perSession, small, long, "add-disk", "Make a disk part of the pool", reply((*Server).addDisk)},
		{"GET", "/disks/{id}", auth.View, auth.Disk, perSession, nothing, quick, "get-disk", "A disk", reply((*Server).getDisk)},
		{"POST", "/disks/{id}/drain", auth.Delete, auth.Disk, perSession, nothing, quick, "drain-disk", "Move what is on a disk elsewhere, and take it out of the pool then", reply((*Server).drainDisk)},
		{"DELETE", "/disks/{id}/drain", auth.Delete, auth.Disk, perSession, nothing, quick, "keep-disk", "Let a disk stay in the pool after all", reply((*Server).keepDisk)},
		{"POST", "/disks/{id}/scrub", auth.Change, auth.Disk, perSession, nothing, quick, "scrub-disk", "Verify all data of a disk", reply((*Server).scrubDisk)},

		{"GET", "/volumes", auth.View, auth.Volume, perSession, nothing, quick, "list-volumes", "Volumes", reply((*Server).listVolumes)},
		{"POST", "/volumes", auth.Create, auth.Volume, perSession, small, quick, "create-volume", "Make a volume", reply((*Server).createVolume)},
		{"GET", "/volumes/{ref}", auth.View, auth.Volume, perSession, nothing, quick, "get-volume", "A volume with its columns", reply((*Server).getVolume)},
		{"PATCH", "/volumes/{ref}", auth.Change, auth.Volume, perSession, small, quick, "resize-volume", "Change a volume's size", reply((*Server).resizeVolume)},
		{"DELETE", "/volumes/{ref}", auth.Delete, auth.Volume, perSession, nothing, quick, "delete-volume", "Forget a volume", reply((*Server).deleteVolume)},
		{"POST", "/volumes/{ref}/scrub", auth.Change, auth.Volume, perSession, nothing, quick, "scrub-volume", "Compare the copies of a volume", reply((*Server).scrubVolume)},
		{"POST", "/volumes/{ref}/exports", auth.Export, auth.Volume, perSession, small, long, "export-volume", "Serve a volume while the request lasts", stream((*Server).exportVolume, describeExport)},
		{"POST", "/volumes/{ref}/snapshots", auth.Create, auth.Snapshot, perSession, small, quick, "create-snapshot", "Keep a volume as it is now", reply((*Server).createSnapshot)},
		{"POST", "/volumes/{ref}/clones", auth.Create, auth.Volume, perSession, small, quick, "clone-volume", "Make a volume that begins as another one", reply((*Server).cloneVolume)},
		{"DELETE", "/volumes/{ref}/revert", auth.Change, auth.Snapshot, perSession, nothing, quick, "cancel-revert", "Leave a volume as it is", reply((*Server).cancelRevert)},
		{"GET", "/snapshots", auth.View, auth.Snapshot, perSession, nothing, quick, "list-snapshots", "Snapshots of volumes", reply((*Server).listSnapshots)},
		{"POST", "/snapshots/{ref}/exports", auth.Export, auth.Snapshot, perSession, small, long, "export-snapshot", "Serve a snapshot while the request lasts", stream((*Server).exportSnapshot, describeExport)},
		{"GET", "/snapshots/{ref}/diff", auth.Export, auth.Snapshot, perSession, nothing, long, "diff-snapshot", "What was changed since a snapshot", stream((*Server).diffSnapshot, describeDiff)},
		{"GET", "/snapshots/{ref}", auth.View, auth.Snapshot, perSession, nothing, quick, "get-snapshot", "A snapshot", reply((*Server).getSnapshot)},
		{"DELETE", "/snapshots/{ref}", auth.Delete, auth.Snapshot, perSession, nothing, quick, "delete-snapshot", "Forget a snapshot", reply((*Server).deleteSnapshot)},
		{"POST", "/snapshots/{ref}/revert", auth.Change, auth.Snapshot, perSession, small, quick, "revert-snapshot", "Make a volume what it was", reply((*Server).revertSnapshot)},
		{"GET", "/images", auth.View, auth.Image, perSession, nothing, quick, "list-images", "Images", reply((*Server).listImages)},
		{"POST", "/images", auth.Create, auth.Image, perSession, image, long, "import-image", "Make a volume of an image file", stream((*Server).importImage, describeImport)},
		{"GET", "/uploads", auth.Create, auth.Image, perSession, nothing, quick, "list-uploads", "Image files that are being sent to this node", reply((*Server).listUploads)},
		{"POST", "/uploads", auth.Create, auth.Image, perSession, small, quick, "create-upload", "Begin to send an image file, which can be interrupted", reply((*Server).createUpload)},
		{"GET", "/uploads/{id}", auth.Create, auth.Image, perSession, nothing, quick, "get-upload", "How far an upload is", reply((*Server).getUpload)},
		{"PATCH", "/uploads/{id}", auth.Create, auth.Image, perSession, image, long, "append-upload", "Send more of an image file", stream((*Server).appendUpload, describeAppend)},
		{"POST", "/uploads/{id}/finish", auth.Create, auth.Image, perSession, small, long, "finish-upload", "Make a volume of an image file that was sent", stream((*Server).finishUpload, describeFinish)},
		{"DELETE", "/uploads/{id}", auth.Create, auth.Image, perSession, nothing, quick, "delete-upload", "Forget an upload", reply((*Server).deleteUpload)},
		{"POST", "/images/fetch", auth.Create, auth.Image, perSession, small, long, "fetch-image", "Download an image file from the public network and make a volume of it", stream((*Server).fetchImage, describeFetch)},
		{"PUT", "/files/{sha256}", auth.Create, auth.File, perSession, bootFile, long, "put-file", "Keep a boot file", stream((*Server).putFile, describePutFile)},
	}
}

func machineRoutes() []route {
	return []route{
		{"GET", "/vms", auth.View, auth.VM, perSession, nothing, quick, "list-vms", "Machines", reply((*Server).listVMs)},
		{"POST", "/vms", auth.Create, auth.VM, perSession, small, long, "create-vm", "Make a machine", reply((*Server).createVM)},
		{"GET", "/vms/{ref}", auth.View, auth.VM, perSession, nothing, quick, "get-vm", "A machine", reply((*Server).getVM)},
		{"GET", "/vms/{ref}/history", auth.View, auth.VM, perSession, nothing, quick, "get-vm-history", "What a machine did", reply((*Server).getVMHistory)},
		{"PATCH", "/vms/{ref}", auth.Change, auth.VM, perSession, small, quick, "change-vm", "Change a machine", reply((*Server).changeVM)},
		{"DELETE", "/vms/{ref}", auth.Delete, auth.VM, perSession, nothing, quick, "delete-vm", "Forget a machine", reply((*Server).deleteVM)},
		{"POST", "/vms/{ref}/start", auth.Power, auth.VM, perSession, small, quick, "start-vm", "Start a machine", reply((*Server).startVM)},
		{"POST", "/vms/{ref}/stop", auth.Power, auth.VM, perSession, small, quick, "stop-vm", "Stop a machine at once", reply((*Server).stopVM)},
		{"POST", "/vms/{ref}/shutdown", auth.Power, auth.VM, perSession, small, quick, "shutdown-vm", "Ask a machine's guest to shut down", reply((*Server).shutdownVM)},
		{"POST", "/vms/{ref}/reset", auth.Power, auth.VM, perSession, small, quick, "reset-vm", "Reset a machine", reply((*Server).resetVM)},
		{"POST", "/vms/{ref}/snapshots", auth.Create, auth.Snapshot, perSession, small, quick, "create-vm-snapshots", "Keep all volumes of a machine as they are now", reply((*Server).createVMSnapshots)},
		{"POST", "/vms/{ref}/migrate", auth.Power, auth.VM, perSession, small, quick, "migrate-vm", "Move a running machine to another node", reply((*Server).migrateVM)},
		{"POST", "/vms/{ref}/console", auth.Console, auth.VM, perSession, small, quick, "create-console-ticket", "Get a ticket to a console", reply((*Server).createTicket)},
		{"GET", "/vms/{ref}/screen.png", auth.Console, auth.VM, perSession, nothing, quick, "get-screen", "What a machine's screen shows", stream((*Server).screenPicture, describePicture)},
		{"GET", screenPath, auth.Console, auth.VM, perSession, nothing, long, "screen-console", "A machine's screen, keyboard and pointer (RFB), by websocket", stream((*Server).screenConsole, describeSocket)},
		{"POST", "/vms/{ref}/exports", auth.Export, auth.VM, perSession, small, long, "export-vm", "Make files of a machine", stream((*Server).exportVM, describeVMExport)},
		{"GET", "/downloads/{id}", auth.Export, auth.VM, perSession, nothing, long, "get-download", "A file that was made of a machine", stream((*Server).download, describeDownload)},
		{"DELETE", "/downloads/{id}", auth.Export, auth.VM, perSession, nothing, quick, "delete-download", "Remove a file that was made of a machine", reply((*Server).deleteDownload)},
		{"POST", "/uploads/{id}/machine", auth.Create, auth.VM, perSession, small, long, "import-vm", "Make a machine of an archive that was sent", stream((*Server).importVM, describeVMImport)},
		{"GET", serialPath, auth.Console, auth.VM, perSession, nothing, long, "serial-console", "A machine's serial port, by websocket", stream((*Server).serialConsole, describeSocket)},
	}
}

// out is how a handler hands the framework its answer.
type out[T any] struct {
	Body T
}

// answer pairs a value with an error, as handlers end.
func answer[T any](v T, err error) (*out[T], error) {
	if err != nil {
		return nil, err
	}
	return &out[T]{Body: v}, nil
}

// done is the answer of what has nothing to say.
type done struct{}

func finished(err error) (*done, error) {
	if err != nil {
		return nil, err
	}
	return &done{}, nil
}

// none is the request of what needs nothing but its path.
type none struct{}

// byRef is a request for one object, by identifier or name.
type byRef struct {
	Ref string `path:"ref" minLength:"1" maxLength:"63" doc:"identifier or name"`
}

// reply mounts a handler of JSON.
func reply[I, O any](handler func(*Server, context.Context, *I) (*O, error)) mounter {
	return func(s *Server, api huma.API, r route, _ func(http.HandlerFunc)) {
		huma.Register(api, r.operation(), func(ctx context.Context, in *I) (*O, error) {
			if r.timeout == long {
				s.patient(ctx)
			}
			o, err := handler(s, ctx, in)
			if err != nil {
				return nil, s.fail(ctx, err)
			}
			return o, nil
		})
	}
}

// stream mounts a handler that speaks HTTP itself. Its error is answered if
// nothing has been yet. describe adds what is special to the specification.
func stream(handler func(*Server, http.ResponseWriter, *http.Request) error,
	describe func(huma.API, *huma.Operation),
) mounter {
	return func(s *Server, api huma.API, r route, raw func(http.HandlerFunc)) {
		op := r.operation()
		describe(api, &op)
		api.OpenAPI().AddOperation(&op)
		raw(func(w http.ResponseWriter, req *http.Request) {
			t := &tracked{ResponseWriter: w}
			err := handler(s, t, req)
			switch {
			case err == nil:
			case !t.begun:
				s.refuse(w, req, err)
			default:
				s.Log.Debug("stream ended", "request", callOf(req.Context()).request, "err", err)
			}
		})
	}
}

// tracked knows whether an answer was begun.
type tracked struct {
	http.ResponseWriter

	begun bool
}

func (t *tracked) WriteHeader(status int) {
	t.begun = true
	t.ResponseWriter.WriteHeader(status)
}

func (t *tracked) Write(p []byte) (int, error) {
	t.begun = true
	return t.ResponseWriter.Write(p) //nolint:wrapcheck // it is the writer
}

// Hijack is for websockets: from here on the answer is not HTTP.
func (t *tracked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	t.begun = true
	return http.NewResponseController(t.ResponseWriter).Hijack() //nolint:wrapcheck // it is the writer
}

// Unwrap lets http.ResponseController reach the connection.
func (t *tracked) Unwrap() http.ResponseWriter { return t.ResponseWriter }
