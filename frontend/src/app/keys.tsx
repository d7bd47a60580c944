import { Kbd, Modal } from '@mantine/core';
import { useHotkeys } from '@mantine/hooks';
import { useNavigate } from '@tanstack/react-router';
import { useTranslation } from 'react-i18next';
import classes from './Shell.module.css';

/** Keys that work everywhere; Ctrl/Cmd-K belongs to the palette. */
export function useKeys(cluster: string, onHelp: () => void): void {
  const navigate = useNavigate();
  const params = { cluster };
  useHotkeys([
    ['shift+?', onHelp],
    ['1', () => void navigate({ to: '/c/$cluster', params })],
    ['2', () => void navigate({ to: '/c/$cluster/vms', params })],
    ['3', () => void navigate({ to: '/c/$cluster/storage', params })],
    ['4', () => void navigate({ to: '/c/$cluster/activity', params })],
  ]);
}

export function HelpDialog({ onClose }: { onClose: () => void }) {
  const { t } = useTranslation();
  const rows = [
    ['Ctrl K', t('keys.palette')],
    ['1 2 3 4', t('keys.screens')],
    ['/', t('keys.search')],
    ['j k', t('keys.move')],
    ['x', t('keys.select')],
    ['Enter', t('keys.open')],
    ['?', t('keys.help')],
  ] as const;
  return (
    <Modal
      opened
      onClose={onClose}
      title={t('keys.title')}
      centered
      closeButtonProps={{ 'aria-label': t('action.close') }}
    >
      <dl className={classes.keys}>
        {rows.map(([keys, what]) => (
          <div key={keys} style={{ display: 'contents' }}>
            <dt>
              {keys.split(' ').map((k) => (
                <Kbd key={k} mr={4}>
                  {k}
                </Kbd>
              ))}
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
    </Modal>
  );
}
