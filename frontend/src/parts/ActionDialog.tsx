import { Button, Group, Modal, TextInput } from '@mantine/core';
import { useState } from 'react';
import type { ReactNode } from 'react';
import { useTranslation } from 'react-i18next';
import { CopyCommand } from './CopyCommand';
import { Problem } from './Problem';
import classes from './parts.module.css';

interface Props {
  title: string;
  onClose: () => void;
  /** Does it. When it fails the dialog stays and shows why. */
  onConfirm: () => Promise<unknown>;
  confirm: string;
  /** What the tool's user would type for the same; this app's own affairs have none. */
  command?: string;
  danger?: boolean;
  ready?: boolean;
  /** The caller closes it itself, or shows something else, once it is done. */
  stays?: boolean;
  /** A name that must be typed before it can be done. */
  typed?: string;
  children?: ReactNode;
  size?: string;
}

/** The one dialog in which something is done. */
export function ActionDialog(p: Props) {
  const { t } = useTranslation();
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState(false);
  const [typed, setTyped] = useState('');
  const ready = (p.ready ?? true) && (p.typed === undefined || typed === p.typed);

  const submit = async () => {
    if (!ready || busy) return;
    setBusy(true);
    setError(undefined);
    try {
      await p.onConfirm();
      if (!p.stays) p.onClose();
    } catch (err) {
      setError(err);
    } finally {
      setBusy(false);
    }
  };

  return (
    <Modal
      opened
      onClose={p.onClose}
      title={p.title}
      size={p.size ?? 'md'}
      centered
      closeButtonProps={{ 'aria-label': t('action.close') }}
    >
      <form
        className={classes.form}
        onSubmit={(e) => {
          e.preventDefault();
          void submit();
        }}
      >
        {p.children}
        {p.typed !== undefined && (
          <TextInput
            label={t('dialog.typeName', { name: p.typed })}
            value={typed}
            onChange={(e) => setTyped(e.currentTarget.value)}
            autoComplete="off"
            spellCheck={false}
            data-autofocus
          />
        )}
        {error !== undefined && <Problem error={error} />}
        {p.command !== undefined && <CopyCommand command={p.command} />}
        <Group justify="flex-end" gap="xs">
          {/* A dangerous button is never what Enter presses by accident. */}
          <Button variant="default" onClick={p.onClose} data-autofocus={p.danger && !p.typed}>
            {t('action.cancel')}
          </Button>
          <Button type="submit" color={p.danger ? 'red' : ''} loading={busy} disabled={!ready}>
            {p.confirm}
          </Button>
        </Group>
      </form>
    </Modal>
  );
}
