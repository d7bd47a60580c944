import { render, screen } from '@testing-library/react';
import { beforeAll, describe, expect, it } from 'vitest';
import { startI18n } from '../i18n';
import { DiskMark, memberLook, taskLook, vmLook, VMMark, volumeLook, VolumeMark } from './states';

beforeAll(() => startI18n('en'));

describe('the states of a column’s members', () => {
  it('look different from one another, in colour and in picture', () => {
    const looks = (['active', 'joining', 'stale'] as const).map(memberLook);
    expect(new Set(looks.map((l) => l.tone)).size).toBe(3);
    expect(new Set(looks.map((l) => l.icon)).size).toBe(3);
    expect(looks.map((l) => l.tone)).toEqual(['ok', 'info', 'warn']);
  });

  it('never look well when a newer cluster has one that is not known here', () => {
    expect(memberLook('drained' as never).tone).toBe('warn');
    expect(vmLook('migrating' as never).tone).toBe('warn');
    expect(volumeLook('frozen' as never).tone).toBe('warn');
    expect(taskLook('queued' as never).tone).toBe('warn');
  });
});

describe('marks', () => {
  it('say the state in words beside the picture', () => {
    const { container } = render(
      <>
        <VMMark state="running" />
        <VMMark state="failed" reason="no node has the memory" />
        <DiskMark state="offline" />
        <VolumeMark state="degraded" />
      </>,
    );
    for (const word of ['Running', 'Failed', 'Offline', 'Degraded']) screen.getByText(word);
    expect(container.querySelectorAll('svg')).toHaveLength(4);
    expect(screen.getByTitle('no node has the memory').textContent).toBe('Failed');
    const states = [...container.querySelectorAll('[data-state]')].map((e) =>
      e.getAttribute('data-state'),
    );
    expect(states).toEqual(['running', 'failed', 'offline', 'degraded']);
  });
});
