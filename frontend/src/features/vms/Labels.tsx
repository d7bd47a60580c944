import { TagsInput, Textarea } from '@mantine/core';
import { useTranslation } from 'react-i18next';

interface Props {
  tags: string[];
  description: string;
  change: (part: { tags?: string[]; description?: string }) => void;
}

/** What people say about a machine. */
export function Labels({ tags, description, change }: Props) {
  const { t } = useTranslation();
  return (
    <>
      <TagsInput
        label={t('vm.tags')}
        description={t('vm.tagsText')}
        name="tags"
        value={tags}
        onChange={(list) => change({ tags: list })}
        maxTags={16}
        splitChars={[',', ' ']}
      />
      <Textarea
        label={t('vm.description')}
        name="description"
        value={description}
        onChange={(e) => change({ description: e.currentTarget.value })}
        maxLength={1024}
        autosize
        maxRows={6}
      />
    </>
  );
}
