from .asking import Answer as Answer
from .asking import Asker as Asker
from .painter import Painter as Painter
from .requests import Drawing as Drawing
from .requests import Hole as Hole
from .server import PictureServer as PictureServer
