import { Button, Group, Modal, Textarea } from '@mantine/core';
import { useEffect, useRef, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { press, strokesOf } from './typing';
import type { Keyboard } from './typing';
import classes from './console.module.css';

interface Props {
  keyboard: Keyboard;
  /** Where the dialog is shown: what is shown in full screen shows nothing beside it. */
  portal: HTMLElement | null;
  onClose: () => void;
}

/** Text that is longer takes minutes; the serial port or the network is better for it. */
const LONGEST = 4000;

/** Types a text, as from the clipboard, on the machine's keyboard. */
export function TypeText({ keyboard, portal, onClose }: Props) {
  const { t } = useTranslation();
  const [text, setText] = useState('');
  const [busy, setBusy] = useState(false);
  const stop = useRef(new AbortController());
  useEffect(() => () => stop.current.abort(), []);
  const { strokes, missing } = strokesOf(text);

  const type = async () => {
    setBusy(true);
    await press(keyboard, strokes, stop.current.signal);
    onClose();
  };
  return (
    <Modal
      opened
      centered
      onClose={onClose}
      title={t('console.type.title')}
      closeButtonProps={{ 'aria-label': t('action.close') }}
      {...(portal && { portalProps: { target: portal } })}
    >
      <form
        onSubmit={(e) => {
          e.preventDefault();
          void type();
        }}
      >
        <Textarea
          name="text"
          label={t('console.type.label')}
          description={t('console.type.text')}
          autosize
          minRows={3}
          maxRows={10}
          maxLength={LONGEST}
          value={text}
          disabled={busy}
          onChange={(e) => setText(e.currentTarget.value)}
          data-autofocus
          {...(missing.length > 0 && {
            error: t('console.type.missing', { keys: missing.join(' ') }),
          })}
        />
        <Group justify="flex-end" mt="md" className={classes.buttons}>
          <Button variant="default" onClick={onClose}>
            {t('action.cancel')}
          </Button>
          <Button type="submit" loading={busy} disabled={strokes.length === 0}>
            {t('console.type.do')}
          </Button>
        </Group>
      </form>
    </Modal>
  );
}
