import { Button } from '@mantine/core';
import { IconEye, IconKeyboard, IconPlugConnected, IconPlugConnectedX } from '@tabler/icons-react';
import { useTranslation } from 'react-i18next';
import type { VM } from '../../api/types';
import { Problem } from '../../parts/Problem';
import type { Line, LineState } from './line';
import classes from './console.module.css';

interface Props {
  line: Line;
  state: LineState;
  vm: VM | undefined;
}

/** Where a console stands: who types, who watches, and what to do when nobody can. */
export function StateBar({ line, state, vm }: Props) {
  const { t } = useTranslation();
  if (state.at === 'failed') return <Problem error={state.error} retry={() => line.open('use')} />;
  return (
    <div className={classes.state} data-line={state.at} role="status">
      <Icon state={state} />
      <span>
        <Sentence state={state} vm={vm} />
      </span>
      {state.at === 'open' && !state.notice.writes && (
        <Button size="compact-sm" variant="default" onClick={() => line.open('take')}>
          {t('console.take')}
        </Button>
      )}
      {state.at === 'ended' && (
        <Button
          size="compact-sm"
          leftSection={<IconPlugConnected size={14} />}
          onClick={() => line.open('use')}
        >
          {t('console.again')}
        </Button>
      )}
    </div>
  );
}

function Icon({ state }: { state: LineState }) {
  if (state.at !== 'open') return <IconPlugConnectedX size={16} aria-hidden="true" />;
  if (state.notice.writes) return <IconKeyboard size={16} aria-hidden="true" />;
  return <IconEye size={16} aria-hidden="true" />;
}

function Sentence({ state, vm }: { state: LineState; vm: VM | undefined }) {
  const { t } = useTranslation();
  switch (state.at) {
    case 'opening':
      return t('console.opening');
    case 'waiting':
      return vm && vm.status.state !== 'running' ? t('console.stopped') : t('console.waiting');
    case 'ended':
      return t('console.ended', { reason: state.reason });
    case 'failed':
      return '';
    case 'open': {
      const { writes, writer, watchers } = state.notice;
      if (!writes) {
        const who = writer === '' ? t('console.nobody') : t('console.writer', { name: writer });
        return `${state.taken === undefined ? '' : `${state.taken}. `}${t('console.watch')} ${who}`;
      }
      if (watchers.length === 0) return t('console.alone');
      return t('console.watched', { names: watchers.join(', ') });
    }
  }
}
