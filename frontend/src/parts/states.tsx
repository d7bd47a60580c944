// The states of things, each with an icon and a word. Every switch here names
// every state, so that a new one does not compile until it has a picture.
import {
  IconAlertTriangle,
  IconCircleCheck,
  IconCircleDashed,
  IconCircleX,
  IconHelpCircle,
  IconLoader,
  IconPlayerPlay,
  IconPlayerStop,
  IconPlugConnectedX,
  IconRefresh,
} from '@tabler/icons-react';
import type { ComponentType } from 'react';
import { useTranslation } from 'react-i18next';
import type { DiskState, MemberState, TaskState, VMState, VolumeState } from '../api/types';
import { Mark } from '../ui/Mark';
import type { Tone } from '../ui/Mark';

interface Look {
  tone: Tone;
  icon: ComponentType<{ size?: number }>;
}

export function vmLook(state: VMState): Look {
  switch (state) {
    case 'running':
      return { tone: 'ok', icon: IconPlayerPlay };
    case 'stopped':
      return { tone: 'dim', icon: IconPlayerStop };
    case 'starting':
    case 'stopping':
      return { tone: 'info', icon: IconLoader };
    case 'failed':
      return { tone: 'bad', icon: IconAlertTriangle };
    case 'unknown':
      return { tone: 'warn', icon: IconHelpCircle };
    default:
      return never(state);
  }
}

export function diskLook(state: DiskState): Look {
  switch (state) {
    case 'online':
      return { tone: 'ok', icon: IconCircleCheck };
    case 'failed':
      return { tone: 'bad', icon: IconAlertTriangle };
    case 'offline':
      return { tone: 'warn', icon: IconPlugConnectedX };
    default:
      return never(state);
  }
}

export function volumeLook(state: VolumeState): Look {
  switch (state) {
    case 'healthy':
      return { tone: 'ok', icon: IconCircleCheck };
    case 'degraded':
      return { tone: 'warn', icon: IconAlertTriangle };
    case 'unavailable':
      return { tone: 'bad', icon: IconCircleX };
    default:
      return never(state);
  }
}

export function memberLook(state: MemberState): Look {
  switch (state) {
    case 'active':
      return { tone: 'ok', icon: IconCircleCheck };
    case 'joining':
      return { tone: 'info', icon: IconRefresh };
    case 'stale':
      return { tone: 'warn', icon: IconCircleDashed };
    default:
      return never(state);
  }
}

export function taskLook(state: TaskState): Look {
  switch (state) {
    case 'running':
      return { tone: 'info', icon: IconLoader };
    case 'done':
      return { tone: 'ok', icon: IconCircleCheck };
    case 'failed':
      return { tone: 'bad', icon: IconAlertTriangle };
    case 'cancelled':
      return { tone: 'dim', icon: IconCircleX };
    default:
      return never(state);
  }
}

/** A state that a newer cluster has and this page does not know. */
function never(_state: never): Look {
  return { tone: 'warn', icon: IconHelpCircle };
}

export function VMMark({ state, reason }: { state: VMState; reason?: string }) {
  const { t } = useTranslation();
  const { tone, icon: Icon } = vmLook(state);
  return (
    <Mark tone={tone} icon={<Icon size={15} />} state={state} title={reason}>
      {t(`vm.state.${state}`)}
    </Mark>
  );
}

export function DiskMark({ state }: { state: DiskState }) {
  const { t } = useTranslation();
  const { tone, icon: Icon } = diskLook(state);
  return (
    <Mark tone={tone} icon={<Icon size={15} />} state={state}>
      {t(`disk.state.${state}`)}
    </Mark>
  );
}

export function VolumeMark({ state }: { state: VolumeState }) {
  const { t } = useTranslation();
  const { tone, icon: Icon } = volumeLook(state);
  return (
    <Mark tone={tone} icon={<Icon size={15} />} state={state}>
      {t(`volume.state.${state}`)}
    </Mark>
  );
}

export function TaskMark({ state }: { state: TaskState }) {
  const { t } = useTranslation();
  const { tone, icon: Icon } = taskLook(state);
  return (
    <Mark tone={tone} icon={<Icon size={15} />} state={state}>
      {t(`task.state.${state}`)}
    </Mark>
  );
}
