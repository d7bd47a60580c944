package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"drystone.example/drystone/backend/agent"
	"drystone.example/drystone/backend/api"
	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

// ImportImage receives an image and makes a volume of it. What is not finished is taken
// away again.
func (s service) ImportImage(ctx context.Context, by model.Actor, i api.Import, body io.Reader,
	progress func(schema.ImportEvent),
) (vol model.Volume, err error) {
	if err := errors.Join(model.ValidateName("image", i.Name), s.roomForNew(ctx)); err != nil {
		return model.Volume{}, err
	}
	ctx, work := s.n.agent.Tasks.Begin(ctx, importTask, i.Name)
	defer func() { work.End(err) }()
	file := model.Bytes(max(i.Size, 0))
	path, err := s.n.agent.Receive(ctx, body, func(done model.Bytes) {
		work.Progress(done, file)
		progress(schema.ImportEvent{Phase: schema.PhaseUpload, Done: done, Total: file})
	})
	if err != nil {
		return model.Volume{}, err
	}
	defer func() { err = errors.Join(err, os.Remove(path)) }()
	return s.makeImage(ctx, by, i, path, work, progress)
}

// ImportFile makes a volume of an image file that is on this node.
func (s service) ImportFile(ctx context.Context, by model.Actor, i api.Import, path string,
	progress func(schema.ImportEvent),
) (vol model.Volume, err error) {
	if err := s.roomForNew(ctx); err != nil {
		return model.Volume{}, err
	}
	ctx, work := s.n.agent.Tasks.Begin(ctx, importTask, i.Name)
	defer func() { work.End(err) }()
	return s.makeImage(ctx, by, i, path, work, progress)
}

const importTask = "image.import"

// makeImage looks at a file, makes a volume for what is in it, and fills that.
func (s service) makeImage(ctx context.Context, by model.Actor, i api.Import, path string,
	work *agent.Work, progress func(schema.ImportEvent),
) (vol model.Volume, err error) {
	image, err := s.n.agent.OpenImage(ctx, path, i.Format.Tool())
	if err != nil {
		return model.Volume{}, err
	}
	defer func() { err = errors.Join(err, image.Close()) }()
	vol, err = s.createVolume(ctx, by, i.Name, model.VolumeImage, image.Size, i.Copies)
	if err != nil {
		return model.Volume{}, err
	}
	err = s.n.agent.Fill(ctx, vol.ID, image, func(share float64) {
		done := model.Bytes(share * float64(image.Size))
		work.Progress(done, image.Size)
		progress(schema.ImportEvent{Phase: schema.PhaseConvert, Done: done, Total: image.Size})
	})
	if err != nil {
		s.undo(ctx, by, command.VolumeDelete{Volume: vol.ID})
		return model.Volume{}, fmt.Errorf("import image: %w", err)
	}
	return vol, nil
}
