package api

import (
	"context"
	"path/filepath"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
)

func (s *Server) getPool(ctx context.Context, _ *none) (*out[schema.Pool], error) {
	p, err := s.picture(ctx)
	if err != nil {
		return nil, err
	}
	return answer(p.pool(), nil)
}

func (s *Server) listDisks(ctx context.Context, _ *none) (*out[schema.List[schema.Disk]], error) {
	p, err := s.picture(ctx)
	if err != nil {
		return nil, err
	}
	disks := make([]schema.Disk, 0, len(p.Disks()))
	for _, d := range p.Disks() {
		disks = append(disks, p.disk(d))
	}
	return answer(schema.ListOf(disks), nil)
}

type diskInput struct {
	Ref  string `path:"ref" minLength:"1" maxLength:"63"`
	Body schema.DiskSpec
}

func (s *Server) addDisk(ctx context.Context, in *diskInput) (*out[schema.Disk], error) {
	if err := absolute(in.Body.Path); err != nil {
		return nil, err
	}
	view, err := s.Record.View(ctx)
	if err != nil {
		return nil, err
	}
	n, err := view.FindNode(in.Ref)
	if err != nil {
		return nil, err
	}
	d, err := s.Service.AddDisk(ctx, by(ctx), n.ID, in.Body)
	if err != nil {
		return nil, err
	}
	return answer(s.pictureOf(ctx, s.Record.Local()).disk(d), nil)
}

func (s *Server) scrubDisk(ctx context.Context, in *byID) (*out[schema.Task], error) {
	_, d, err := s.diskOf(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return answer(s.Service.ScrubDisk(ctx, by(ctx), d))
}

func (s *Server) scrubVolume(ctx context.Context, in *byRef) (*out[schema.Task], error) {
	view, err := s.Record.View(ctx)
	if err != nil {
		return nil, err
	}
	v, err := view.FindVolume(in.Ref)
	if err != nil {
		return nil, err
	}
	return answer(s.Service.ScrubVolume(ctx, by(ctx), v))
}

// diskOf finds a disk in the record.
func (s *Server) diskOf(ctx context.Context, text string) (*state.View, model.Disk, error) {
	id, err := model.ParseID[model.DiskID](text)
	if err != nil {
		return nil, model.Disk{}, err
	}
	view, err := s.Record.View(ctx)
	if err != nil {
		return nil, model.Disk{}, err
	}
	d, err := view.Disk(id)
	return view, d, err
}

func (s *Server) getDisk(ctx context.Context, in *byID) (*out[schema.Disk], error) {
	view, d, err := s.diskOf(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return answer(s.pictureOf(ctx, view).disk(d), nil)
}

func (s *Server) drainDisk(ctx context.Context, in *byID) (*out[schema.Disk], error) {
	return s.drain(ctx, in.ID, false)
}

func (s *Server) keepDisk(ctx context.Context, in *byID) (*out[schema.Disk], error) {
	return s.drain(ctx, in.ID, true)
}

// drain lets a disk leave the pool, or not after all.
func (s *Server) drain(ctx context.Context, text string, cancel bool) (*out[schema.Disk], error) {
	_, d, err := s.diskOf(ctx, text)
	if err != nil {
		return nil, err
	}
	cmd := command.DiskDrain{Disk: d.ID, Cancel: cancel}
	if cancel {
		cmd.Errors = s.Service.Disks(ctx)[d.ID].ChecksumErrors // whoever lets it stay has seen them
	}
	o, err := s.Record.Apply(ctx, by(ctx), cmd)
	if err != nil {
		return nil, err
	}
	d = o.(model.Disk) //nolint:errcheck,forcetypeassert // the command says what it returns
	return answer(s.pictureOf(ctx, s.Record.Local()).disk(d), nil)
}

// absolute refuses a path that could mean something else on the node than to
// whoever wrote it.
func absolute(path string) error {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return model.Errorf(model.Invalid, "the path %q is not absolute and plain", path)
	}
	return nil
}

func (s *Server) listVolumes(ctx context.Context, _ *none) (*out[schema.List[schema.Volume]], error) {
	return s.volumes(ctx, "")
}

func (s *Server) listImages(ctx context.Context, _ *none) (*out[schema.List[schema.Volume]], error) {
	return s.volumes(ctx, model.VolumeImage)
}

// volumes lists those of a kind, or all.
func (s *Server) volumes(ctx context.Context, kind model.VolumeKind) (*out[schema.List[schema.Volume]], error) {
	p, err := s.picture(ctx)
	if err != nil {
		return nil, err
	}
	volumes := []schema.Volume{}
	for _, v := range p.Volumes() {
		if kind == "" || v.Kind == kind {
			volumes = append(volumes, p.volume(v, false))
		}
	}
	return answer(schema.ListOf(volumes), nil)
}

func (s *Server) getVolume(ctx context.Context, in *byRef) (*out[schema.Volume], error) {
	p, err := s.picture(ctx)
	if err != nil {
		return nil, err
	}
	v, err := p.FindVolume(in.Ref)
	if err != nil {
		return nil, err
	}
	return answer(p.volume(v, true), nil)
}

// volumeOf answers with a volume after a change that returned its record.
func (s *Server) volumeOf(ctx context.Context, v model.Volume, err error) (*out[schema.Volume], error) {
	if err != nil {
		return nil, err
	}
	return answer(s.pictureOf(ctx, s.Record.Local()).volume(v, true), nil)
}

type volumeInput struct {
	Body schema.VolumeSpec
}

func (s *Server) createVolume(ctx context.Context, in *volumeInput) (*out[schema.Volume], error) {
	if err := model.ValidateVolume(in.Body.Name, in.Body.Size, in.Body.Copies); err != nil {
		return nil, err
	}
	v, err := s.Service.CreateVolume(ctx, by(ctx), in.Body)
	return s.volumeOf(ctx, v, err)
}

type resizeInput struct {
	Ref  string `path:"ref" minLength:"1" maxLength:"63"`
	Body schema.VolumeChange
}

func (s *Server) resizeVolume(ctx context.Context, in *resizeInput) (*out[schema.Volume], error) {
	if err := model.ValidateSize(in.Body.Size); err != nil {
		return nil, err
	}
	id, err := s.volumeID(ctx, in.Ref)
	if err != nil {
		return nil, err
	}
	v, err := s.Service.ResizeVolume(ctx, by(ctx), id, in.Body.Size)
	return s.volumeOf(ctx, v, err)
}

func (s *Server) deleteVolume(ctx context.Context, in *byRef) (*done, error) {
	id, err := s.volumeID(ctx, in.Ref)
	if err != nil {
		return nil, err
	}
	return finished(s.Service.DeleteVolume(ctx, by(ctx), id))
}

func (s *Server) volumeID(ctx context.Context, ref string) (model.VolumeID, error) {
	view, err := s.Record.View(ctx)
	if err != nil {
		return 0, err
	}
	v, err := view.FindVolume(ref)
	return v.ID, err
}
