"""Store decoded clips and embeddings, and read them back fast."""

from avslib.storage.audio_cache import CachedAudio, cache_audio
from avslib.storage.cache import CachedClips
from avslib.storage.pack import pack
from avslib.storage.shard_reader import ShardedClips

__all__ = ["CachedAudio", "CachedClips", "ShardedClips", "cache_audio", "pack"]
