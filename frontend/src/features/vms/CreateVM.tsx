import { Button, Checkbox, Group, Modal, Stepper } from '@mantine/core';
import { useNavigate } from '@tanstack/react-router';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useConnection } from '../../api/context';
import { putFile } from '../../api/files';
import type { VM } from '../../api/types';
import { CopyCommand } from '../../parts/CopyCommand';
import { Problem } from '../../parts/Problem';
import { said } from '../../parts/useRun';
import { power } from './actions';
import { BootStep, DiskStep, SizeStep } from './CreateSteps';
import { commandOf, complete, emptyDraft, specOf } from './draft';
import type { Draft } from './draft';

const LAST = 2;

/** Three steps to a running machine. */
export function CreateVM({ onClose }: { onClose: () => void }) {
  const { t } = useTranslation();
  const connection = useConnection();
  const navigate = useNavigate();
  const [step, setStep] = useState(0);
  const [draft, setDraft] = useState<Draft>(emptyDraft);
  const [error, setError] = useState<unknown>();
  const [doing, setDoing] = useState<'upload' | 'create' | 'start' | undefined>();
  const change = (part: Partial<Draft>) => setDraft((d) => ({ ...d, ...part }));
  const ready = complete(draft, step);

  const create = async () => {
    setError(undefined);
    try {
      const { boot } = draft;
      setDoing('upload');
      const put = async (f?: File) => (f ? putFile(connection, f) : undefined);
      const kernel = boot.kind === 'kernel' ? await put(boot.kernel) : undefined;
      const initrd = boot.kind === 'kernel' ? await put(boot.initrd) : undefined;
      setDoing('create');
      const spec = specOf(draft, kernel, initrd);
      const vm = await connection.call<VM>('/vms', { method: 'POST', body: spec });
      if (draft.start) {
        setDoing('start');
        await power(connection, vm, 'start');
      }
      said(t('vm.create.done', { name: vm.name }));
      void navigate({
        to: '/c/$cluster/vms/$vm',
        params: { cluster: connection.id, vm: vm.id },
      });
    } catch (err) {
      setError(err);
    } finally {
      setDoing(undefined);
    }
  };

  const next = () => {
    if (!ready || doing) return;
    if (step < LAST) setStep(step + 1);
    else void create();
  };

  return (
    <Modal
      opened
      onClose={onClose}
      title={t('vm.create.title')}
      size="lg"
      centered
      closeButtonProps={{ 'aria-label': t('action.close') }}
    >
      <form
        onSubmit={(e) => {
          e.preventDefault();
          next();
        }}
      >
        <Stepper active={step} onStepClick={setStep} size="sm" iconSize={30}>
          <Stepper.Step label={t('vm.create.size')}>
            <SizeStep draft={draft} change={change} />
          </Stepper.Step>
          <Stepper.Step label={t('vm.create.disk')} allowStepSelect={complete(draft, 0)}>
            <DiskStep draft={draft} change={change} />
          </Stepper.Step>
          <Stepper.Step
            label={t('vm.create.boot')}
            allowStepSelect={complete(draft, 0) && complete(draft, 1)}
          >
            <BootStep draft={draft} change={change} />
          </Stepper.Step>
        </Stepper>
        <Group my="md" style={{ minHeight: 24 }}>
          {step === LAST && (
            <Checkbox
              label={t('vm.create.start')}
              checked={draft.start}
              onChange={(e) => change({ start: e.currentTarget.checked })}
            />
          )}
        </Group>
        {error !== undefined && <Problem error={error} />}
        <CopyCommand command={commandOf(draft)} />
        <Group justify="flex-end" gap="xs" mt="md">
          <Button variant="default" onClick={step === 0 ? onClose : () => setStep(step - 1)}>
            {step === 0 ? t('action.cancel') : t('action.back')}
          </Button>
          <Button type="submit" disabled={!ready} loading={doing !== undefined}>
            {step < LAST
              ? t('action.next')
              : t(draft.start ? 'vm.create.andStart' : 'vm.create.only')}
          </Button>
        </Group>
      </form>
    </Modal>
  );
}
