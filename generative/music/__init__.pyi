from .metrics import (
    Style as Style,
)
from .metrics import (
    StyleDistance as StyleDistance,
)
from .metrics import (
    real_distance as real_distance,
)
from .metrics import (
    style as style,
)
from .metrics import (
    style_distance as style_distance,
)
from .notes import Note as Note
from .parsing import (
    parse as parse,
)
from .parsing import (
    parse_pieces as parse_pieces,
)
from .parsing import (
    read_pieces as read_pieces,
)
from .parsing import (
    read_streams as read_streams,
)
from .pictures import piano_roll as piano_roll
from .pictures import piano_rolls as piano_rolls
from .score import Score as Score
from .score import score_of_voices as score_of_voices
from .sound import synthesise as synthesise
from .sound import wav_bytes as wav_bytes
from .tokens import (
    Streams as Streams,
)
from .tokens import (
    Vocabulary as Vocabulary,
)
from .tokens import (
    deinterleave as deinterleave,
)
from .tokens import (
    events as events,
)
from .tokens import (
    grid as grid,
)
from .tokens import (
    interleave as interleave,
)
from .tokens import (
    one_word_each as one_word_each,
)
from .tokens import (
    score_of_events as score_of_events,
)
from .tokens import (
    score_of_grid as score_of_grid,
)
from .tokens import (
    score_of_stream as score_of_stream,
)
from .tokens import (
    score_of_streams as score_of_streams,
)
from .tokens import (
    score_of_words as score_of_words,
)
from .tokens import (
    streams_of_score as streams_of_score,
)
from .tokens import (
    transpose_streams as transpose_streams,
)
